"""Image to task: a small network that says which damage a picture shows, or that it is clean.

Damage of these kinds is a matter of texture and tone, much the same all over a picture, so the network works on the
statistics of `ipt.understanding.texture`, of a few tiles of a large picture instead of all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipt.pixels import to_unit
from ipt.understanding.texture import texture

TILE = 128  # pixels, side of what it looks at
TILES = 16  # of a large picture
SMALLEST = 16  # pixels; a smaller picture is enlarged by repeating its edge
WIDTH = 128
MOST_WIDTH = 1024  # that a checkpoint may have
# More tiles are more evidence, but of one picture, so not as much as if each were another.
EVIDENCE = 0.4  # power of the number of tiles
AHEAD = 1e-3  # in scores, so that clean leads and does not tie
NEVER = -1e4  # the score of a task that no picture asks for


class Estimator(nn.Module):
    """Scores the tasks, and clean as the last, for each of a batch of tiles."""

    mean: Tensor
    spread: Tensor
    caution: Tensor

    def __init__(self, tasks: int, width: int = WIDTH) -> None:
        super().__init__()
        statistics = texture(torch.zeros(1, 3, SMALLEST, SMALLEST)).shape[1]
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("spread", torch.ones(statistics))
        self.layers = nn.Sequential(
            nn.Linear(statistics, width), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(width, width), nn.GELU(), nn.Dropout(0.3),
        )  # fmt: skip
        self.score = nn.Linear(width, tasks + 1)
        self.register_buffer("caution", torch.zeros(()))  # added to the score of clean of a picture; see trust_clean
        nn.init.zeros_(self.score.weight)  # untrained, it does not know
        nn.init.zeros_(self.score.bias)

    @property
    def width(self) -> int:
        """Of its hidden layers."""
        return self.score.in_features

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] to logits (B, tasks + 1)."""
        return self.logits(texture(tiles))

    def logits(self, statistics: Tensor) -> Tensor:
        """(B, statistics) as `texture` gives them to logits (B, tasks + 1)."""
        return self.score(self.layers(((statistics - self.mean) / self.spread).clamp(-5, 5)))


@torch.no_grad()
def for_more_tasks(estimator: Estimator, places: Sequence[int], tasks: int) -> Estimator:
    """An estimator of so many `tasks` that says what this one does, whose task n is at `places[n]`; never another."""
    wider = Estimator(tasks, estimator.width)
    wider.load_state_dict({**estimator.state_dict(), **wider.score.state_dict(prefix="score.")})
    wider.score.bias.fill_(NEVER)
    rows = [*places, tasks]
    wider.score.weight[rows], wider.score.bias[rows] = estimator.score.weight, estimator.score.bias
    return wider.train(estimator.training)


@torch.no_grad()
def estimate(estimator: Estimator, image: np.ndarray) -> Tensor:
    """The probability of each task and, last, of clean, for an image (H, W, 3) of any dtype of `ipt.pixels`."""
    return _scores(estimator, image).softmax(0).cpu()


def _scores(estimator: Estimator, image: np.ndarray) -> Tensor:
    device = estimator.score.weight.device
    tiles = look_at(image)
    logits = estimator(torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().to(device))
    scores = logits.mean(0) * len(tiles) ** EVIDENCE
    scores[-1] += estimator.caution
    return scores


def look_at(image: np.ndarray) -> np.ndarray:
    """Up to TILES tiles, float32 (N, TILE, TILE, 3), spread evenly over an image; smaller where the image is."""
    height, width = image.shape[:2]
    down, right = max(SMALLEST - height, 0), max(SMALLEST - width, 0)
    if down or right:
        image = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
        height, width = image.shape[:2]
    rows, columns = max(height // TILE, 1), max(width // TILE, 1)
    while rows * columns > TILES:
        rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
    tiles = [
        image[top : top + TILE, left : left + TILE] for top in _places(height, rows) for left in _places(width, columns)
    ]
    return to_unit(np.stack(tiles))


def _places(length: int, count: int) -> list[int]:
    """Where `count` tiles begin along a side: evenly from border to border, a single one in the middle."""
    rest = max(length - TILE, 0)
    return [rest // 2] if count == 1 else np.linspace(0, rest, count).astype(int).tolist()


def train_estimator(
    estimator: Estimator, statistics: Tensor, labels: Tensor, steps: int, batch: int
) -> Iterator[float]:
    """Fit `estimator` to tiles given as their statistics (N, statistics) and labels (N,); yields each step's loss.

    A label is the place of the task, or the number of tasks for clean.
    """
    estimator.mean.copy_(statistics.mean(0))
    estimator.spread.copy_(statistics.std(0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(labels), (batch,))
        blurred = statistics[rows] + 0.1 * estimator.spread * torch.randn(batch, statistics.shape[1])
        loss = F.cross_entropy(estimator.logits(blurred), labels[rows], label_smoothing=0.03)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


@torch.no_grad()
def trust_clean(estimator: Estimator, clean: Iterable[np.ndarray], share: float) -> None:
    """Raise the score of clean until at least `share` of images known to be clean are said to be so."""
    scores = torch.stack([_scores(estimator, image) for image in clean])
    lead = (scores[:, -1] - scores[:, :-1].amax(1)).sort().values
    estimator.caution += (AHEAD - lead[min(int(len(lead) * (1 - share)), len(lead) - 1)]).clamp(min=0)
