"""`make bench-diffusion`: do biases by noise level earn their place in a diffusion denoiser?

Equal steps, data and backbone (a small diffusers DiT, 32 x 32 crops of data/clean); each result is kept in
build/diffusion, so an interrupted call goes on where it was. The table goes into docs/diffusion.md, between the marks
for that number of steps.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiTTransformer2DModel
from torch import Tensor, nn

from benchmarks.marks import write_between
from benchmarks.modulation import report, turns
from ipt.biases.sensitivity import choose_layers, sensitivity
from ipt.diffusion.denoiser import modulate_denoiser
from ipt.diffusion.denoising import denoising_step, draw_timesteps, interval_errors, sample_images
from ipt.diffusion.noise_levels import noise_intervals, schedule_of
from ipt.diffusion.wasserstein import sliced_wasserstein
from ipt.training.fit import TrainingSettings, TrainingState
from pipelines.common.files import write_json
from pipelines.common.paths import CLEAN
from pipelines.data.tiles import open_tiles
from pipelines.data.tiles import read_tiles as read_rows

RESULTS, REPORT = Path("build/diffusion"), Path("docs/diffusion.md")
BEGIN = "<!-- made by `make bench-diffusion`, {steps} steps -->\n"
SIDE, BATCH, INTERVALS, HEADS = 32, 32, 4, 4
HELD_OUT, SAMPLES, SAMPLING_STEPS = 512, 256, 20
KEEP = 0.9  # share of the biases' gain that the chosen layers carry
ALL_RANK = 4
ROWS = {
    "all layers": f"rank {ALL_RANK} on all layers",
    "plain": "no biases",
    "rank 2": "on the sensitive layers",
    "rank 4": "",
    "rank 8": "",
    "wider": "plain, with at least as many parameters as rank 8",
    "wider, half rate": "at half the learning rate",
}
NEEDED = ("all layers", "plain")  # what chooses the sensitive layers, and what all are compared with
NETWORK = {
    "attention_head_dim": 16, "num_layers": 4, "patch_size": 4, "in_channels": 3, "sample_size": SIDE,
    "num_embeds_ada_norm": 1, "norm_num_groups": 1,
}  # fmt: skip
# Of 1, 2, 4, 8 and 16e-3 the best for the plain network in 200 steps (seed 100); the biases' was not searched.
LEARNING_RATE = 8e-3


def backbone(seed: int, heads: int = HEADS) -> nn.Module:
    """A DiT of one class; `heads` of 16 channels are its width."""
    torch.manual_seed(seed)
    return DiTTransformer2DModel(num_attention_heads=heads, **NETWORK)


def schedule() -> DDPMScheduler:
    """Noise of Ho et al. 2020; the network predicts the velocity (Salimans & Ho 2022)."""
    return DDPMScheduler(1000, prediction_type="v_prediction")


class Unconditional(nn.Module):
    """A DiT of one class, called without the class."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """(B, 3, H, W) and one timestep or (B,) to the prediction, in a tuple."""
        labels = torch.zeros(len(sample), dtype=torch.long, device=sample.device)
        return self.denoiser(sample, timestep.expand(len(sample)), labels, return_dict=False)


def read_tiles(split: str) -> np.ndarray:
    """All clean tiles of a split, (N, H, W, 3) uint8."""
    tiles = open_tiles(CLEAN / f"{split}.parquet")
    return np.stack([row["clean"] for row in read_rows(tiles, np.arange(tiles.rows.sum()))])


def crops(tiles: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random tiles, perhaps mirrored: (count, 3, SIDE, SIDE) in [0, 1]."""
    cut = []
    for tile in tiles[rng.integers(len(tiles), size=count)]:
        top, left = rng.integers(0, tile.shape[0] - SIDE + 1, size=2)
        cut.append(tile[top : top + SIDE, left : left + SIDE][:, :: int(rng.choice([1, -1]))])
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255


def batches(tiles: np.ndarray, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless clean crops, timesteps and noise: the same for all rows of a seed."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    table = noise_intervals(schedule_of(schedule()), INTERVALS)
    while True:
        clean = crops(tiles, BATCH, rng)
        yield clean, draw_timesteps(table, BATCH, generator), torch.randn(clean.shape, generator=generator)


def settings(steps: int, rate: float = LEARNING_RATE) -> TrainingSettings:
    """The same for all rows, but for the rate where a row says so."""
    return TrainingSettings(
        steps=steps, learning_rate=rate, bias_learning_rate=rate, warmup_steps=steps // 10,
        weight_decay=1e-4, clip_norm=1.0, ema_decay=0.99, task_weights=(), bf16=False,
    )  # fmt: skip


def build(row: str, seed: int, layers: list[str]) -> nn.Module:
    """The untrained network of a row, with the same backbone for all rows of a seed (but the wider one)."""
    if row == "plain":
        return backbone(seed)
    if row.startswith("wider"):
        wanted, heads = size(build("rank 8", seed, layers)), HEADS
        while size(backbone(seed, heads)) < wanted:
            heads += 1
        return backbone(seed, heads)
    rank = ALL_RANK if row == "all layers" else int(row.removeprefix("rank "))
    return modulate_denoiser(backbone(seed), schedule(), INTERVALS, rank, ["*"] if row == "all layers" else layers)


def size(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def train(network: nn.Module, tiles: np.ndarray, seed: int, numbers: TrainingSettings) -> nn.Module:
    """The averaged network, called without a class."""
    state = TrainingState(Unconditional(network.train()), numbers)
    for clean, timesteps, noise in itertools.islice(batches(tiles, seed), numbers.steps):
        denoising_step(state, state.model, schedule(), clean, timesteps, noise)
    return state.ema.module.eval()


def held_out(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Crops of two halves of the held-out tiles, which share no tile: to measure on, and for the noise floor."""
    tiles = read_tiles("val")
    rng = np.random.default_rng([seed, 1])
    half = rng.permutation(len(tiles))
    return crops(tiles[half[::2]], HELD_OUT, rng), crops(tiles[half[1::2]], HELD_OUT, rng)


def errors(network: nn.Module, clean: Tensor) -> list[float]:
    """Held-out error of each interval."""
    table = noise_intervals(schedule_of(schedule()), INTERVALS)
    return interval_errors(network, schedule(), table, clean, seed=0)


def measure(row: str, seed: int, steps: int, layers: list[str]) -> tuple[dict, nn.Module]:
    """Train and score one row; also the trained network."""
    started = time.monotonic()
    numbers = settings(steps, LEARNING_RATE / 2 if row == "wider, half rate" else LEARNING_RATE)
    network = train(build(row, seed, layers), read_tiles("train"), seed, numbers)
    seconds = time.monotonic() - started
    first, second = held_out()
    drawn = sample_images(network, DDIMScheduler.from_config(schedule().config), SAMPLES, SIDE, seed, SAMPLING_STEPS)
    return {
        "row": row, "seed": seed, "steps": steps, "parameters": size(network),
        "errors": errors(network, torch.cat([first, second])), "distance": sliced_wasserstein(drawn, first[:SAMPLES]),
        "floor": sliced_wasserstein(second[:SAMPLES], first[:SAMPLES]), "seconds": seconds,
    }, network  # fmt: skip


def sensitive_layers(network: nn.Module, clean: Tensor) -> tuple[list[str], dict[str, list[float]]]:
    """Names of the layers whose biases carry most of the gain, and what each gains in each interval, dB."""
    modulated = network.denoiser.denoiser
    scores = sensitivity(modulated, lambda _: [-10 * math.log10(error) for error in errors(network, clean)])
    return choose_layers(scores, KEEP), scores


def chosen_layers(steps: int) -> Path:
    """Where the names of the sensitive layers are kept."""
    return RESULTS / f"layers-{steps}steps.json"


def kept_or_measured(row: str, seed: int, steps: int) -> dict:
    """The row's result in build/diffusion, measured now where it is not there; `all layers` chooses the layers too."""
    path = RESULTS / f"{row.replace(',', '').replace(' ', '-')}-seed{seed}-{steps}steps.json"
    if path.is_file():
        return json.loads(path.read_text())
    chosen = chosen_layers(steps)
    layers = json.loads(chosen.read_text())["layers"] if chosen.is_file() else []
    result, network = measure(row, seed, steps, layers)
    if row == "all layers" and not layers:
        rng = np.random.default_rng(2)  # training crops: the held-out ones are for the scores
        names, scores = sensitive_layers(network, crops(read_tiles("train"), 128, rng))
        write_json(chosen, {"layers": names, "of": len(scores), "scores": scores})
    write_json(path, result)
    print(f"{path}: {np.round(result['errors'], 4)}, {result['distance']:.4f}, {result['seconds']:.0f} s", flush=True)
    return result


def table(results: list[dict], of: dict) -> str:
    """Markdown: mean over seeds of the error by interval, ± half the range; how often below the plain row."""
    plain = {r["seed"]: r["errors"] for r in results if r["row"] == "plain"}
    wide = {r["seed"]: np.mean(r["errors"]) for r in results if r["row"] == "wider"}
    intervals = range(len(results[0]["errors"]))
    lines = [
        f"| | parameters | {' | '.join(f'interval {i}' for i in intervals)} | mean | below plain | not above wider "
        "| distance |",
        "| --- | --- | " + "--- | " * len(intervals) + "--- | --- | --- | --- |",
    ]
    for row in sorted({r["row"] for r in results}, key=["plain", *ROWS].index):
        kept = [r for r in results if r["row"] == row]
        values = np.array([r["errors"] for r in kept])
        below = [e < p for r in kept for e, p in zip(r["errors"], plain[r["seed"]], strict=True)]
        narrower = [np.mean(r["errors"]) <= wide[r["seed"]] for r in kept if r["seed"] in wide]
        cells = " | ".join(spread(column) for column in values.T)
        parts = [
            f"{row} ({ROWS[row]})" if ROWS[row] else row,
            f"{kept[0]['parameters'] / 1e3:.0f} k",
            cells,
            spread(values.mean(1)),
            "" if row == "plain" else f"{sum(below)} of {len(below)}",
            "" if row in ("plain", "wider") else f"{sum(narrower)} of {len(narrower)} seeds",
            spread(np.array([r["distance"] for r in kept])),
        ]
        lines.append(f"| {' | '.join(parts)} |")
    names = ", ".join(f"`{name}`" for name in of["layers"])
    lines.append(f"\nReal against real: {results[0]['floor']:.4f}.")
    lines.append(f"Sensitive layers, {len(of['layers'])} of {of['of']}: {names}.")
    return "\n".join(lines) + "\n"


def spread(values: np.ndarray) -> str:
    """Mean and, of several, half the range."""
    return f"{values.mean():.4f}" + (f" ± {np.ptp(values) / 2:.4f}" if len(values) > 1 else "")


def times(count: int, layers: list[str]) -> None:
    """Print what biases, on all layers or on `layers`, cost in a training and in a sampling step beside none."""
    plain = backbone(0)
    modulated, sensitive = (
        modulate_denoiser(copy.deepcopy(plain), schedule(), INTERVALS, ALL_RANK, names) for names in (["*"], layers)
    )
    clean = torch.rand(BATCH, 3, SIDE, SIDE)
    even = draw_timesteps(modulated.interval_of_timestep, BATCH, torch.Generator().manual_seed(0))
    uniform = torch.randint(1000, (BATCH,), generator=torch.Generator().manual_seed(0))

    def training(network: nn.Module, timesteps: Tensor) -> Callable[[], object]:
        state, noise = TrainingState(Unconditional(network).train(), settings(1000, 0.0)), torch.randn_like(clean)
        return lambda: denoising_step(state, state.model, schedule(), clean, timesteps, noise)

    def sampling(network: nn.Module) -> Callable[[], object]:
        network = Unconditional(copy.deepcopy(network)).eval()
        return torch.no_grad()(lambda: network(clean, torch.tensor(500)))

    calls = {
        "plain": training(plain, even),
        "all layers": training(modulated, even),
        "all layers, unsorted timesteps": training(modulated, uniform),
        "sensitive layers": training(sensitive, even),
    }
    report(f"training step, {BATCH} crops, rank {ALL_RANK}", turns(calls, count))
    report("sampling step", turns({"plain": sampling(plain), "merged, all layers": sampling(modulated)}, count))


def main() -> None:
    """Measure what is not yet measured and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help=f"beside {' and '.join(NEEDED)}"
    )
    parser.add_argument("--turns", type=int, default=30, help="to measure the time of a step in")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for row in ROWS if row in (*NEEDED, *given.rows)]
    results = [kept_or_measured(row, seed, given.steps) for seed in given.seeds for row in rows]
    chosen = json.loads(chosen_layers(given.steps).read_text())
    written = table(results, chosen)
    print(written)
    times(given.turns, chosen["layers"])
    write_between(REPORT, BEGIN.format(steps=given.steps), written)


if __name__ == "__main__":
    main()
