"""What one step learns from."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Image pairs (B, 3, H, W) in [0, 1] with the task of each, sorted by task so that every task is a run."""

    degraded: Tensor
    clean: Tensor
    index: Tensor  # (B,)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(t.to(device, non_blocking=True) for t in (self.degraded, self.clean, self.index)))

    def parts(self, most: int | None) -> list[Batch]:
        """The batch in parts of at most `most` samples (None: in one), each with its share of every task.

        Raises ValueError where `most` is below the number of tasks.
        """
        if most is None or most >= len(self.index):
            return [self]
        runs = [torch.nonzero(self.index == task).flatten() for task in self.index.unique()]
        if most < len(runs):
            raise ValueError(f"samples_at_once: expected at least one of each of {len(runs)} tasks, got {most}")
        count = next(n for n in itertools.count(2) if sum(-(-len(run) // n) for run in runs) <= most)
        rows = map(torch.cat, zip(*(run.tensor_split(count) for run in runs), strict=True))
        return [Batch(self.degraded[row], self.clean[row], self.index[row]) for row in rows]
