"""Text to task: a linear classifier on hashed pieces of words, trained with the model and saved in it.

Small (about 100 kB), offline, and robust to endings and typing errors because it sees pieces of words, not words.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BUCKETS = 4096  # hash buckets; a few thousand pieces rarely collide and the weights stay small


class InstructionModel(nn.Module):
    """Scores tasks for a sentence against the score 0 of being unsure; pieces of words never seen score nothing."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.score = nn.Linear(BUCKETS, tasks, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """N sentences to probabilities (N, tasks); what is missing to 1 is the probability of neither."""
        inputs = torch.stack([features(sentence) for sentence in sentences])
        return self.logits(inputs.to(self.score.weight.device)).softmax(-1)[:, :-1]

    def logits(self, inputs: Tensor) -> Tensor:
        """Features (N, BUCKETS) to logits (N, tasks + 1), the last for being unsure."""
        return F.pad(self.score(inputs), (0, 1))


def features(sentence: str) -> Tensor:
    """A unit vector (BUCKETS,) of the words and the 3- to 5-letter pieces of a sentence; zero for an empty one."""
    vector = torch.zeros(BUCKETS)
    for word in re.findall(r"\w+", sentence.lower()):
        framed = f"<{word}>"
        pieces = [framed] + [framed[i : i + n] for n in (3, 4, 5) for i in range(len(framed) - n + 1)]
        for piece in pieces:
            vector[zlib.crc32(piece.encode()) % BUCKETS] += 1
    return F.normalize(vector.sqrt(), dim=0)


def train_instructions(model: InstructionModel, sentences: Sequence[Sequence[str]], steps: int = 300) -> float:
    """Fit `model` to `sentences[task]`, lists of sentences in task order; returns the share it then gets right.

    Deterministic: full batches from the model's present weights.
    """
    inputs = torch.stack([features(sentence) for group in sentences for sentence in group])
    targets = torch.tensor([task for task, group in enumerate(sentences) for _ in group])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model.logits(inputs), targets).backward()
        optimizer.step()
    with torch.no_grad():
        return (model.logits(inputs).argmax(1) == targets).float().mean().item()
