"""Shards of the listed tasks to groups of cut samples, by their number alone.

A *group* holds `share` samples of every task, in task order. So any split over workers and any cut into batches keeps
the task mix exact, and training can continue at any step: group g takes, from each task, the samples number g * share
and up of that task's own endless shuffled stream. `pipelines.training.stream` brings the groups to the workers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.common.params import Ingest, Task
from pipelines.data.drawings import draw
from pipelines.data.row_groups import RowGroup, RowGroups
from pipelines.data.shards import by_group, read_group, row_groups_of
from pipelines.training.crops import Cuts, cut_squares, draw_cuts


class TaskStream:
    """The endless shuffled stream of one task's samples: pass after pass, each in an order of its own."""

    def __init__(self, row_groups: RowGroups, seed: int) -> None:
        self.row_groups = row_groups
        self.seed = seed
        self.rows = int(row_groups.rows.sum())
        self._passes: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # the last two, which take milliseconds to draw

    def take(self, start: int, count: int) -> list[tuple[RowGroup, int]]:
        """Samples number `start` to `start + count - 1` as (row group, row in it)."""
        samples: list[tuple[RowGroup, int]] = []
        while len(samples) < count:
            number, offset = divmod(start + len(samples), self.rows)
            order, ends = self._pass(number)
            place = int(np.searchsorted(ends, offset, side="right"))
            group = self.row_groups[int(order[place])]
            rows = np.random.default_rng([self.seed, number, int(order[place])]).permutation(group.rows)
            skip = offset - (int(ends[place]) - group.rows)
            samples += [(group, int(row)) for row in rows[skip : skip + count - len(samples)]]
        return samples

    def _pass(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._passes:
            order = np.random.default_rng([self.seed, number]).permutation(len(self.row_groups))
            before = {last: drawn for last, drawn in self._passes.items() if last == number - 1}
            self._passes = before | {number: (order, np.cumsum(self.row_groups.rows[order]))}
        return self._passes[number]


@dataclass(frozen=True)
class Mix:
    """What the stream is made of: each task's share and row groups, in task order."""

    shares: tuple[int, ...]
    row_groups: tuple[RowGroups, ...]
    seed: int

    @functools.cached_property
    def streams(self) -> list[TaskStream]:
        """One stream per task, with a seed of its own."""
        return [TaskStream(groups, mixed_seed(self.seed, number)) for number, groups in enumerate(self.row_groups)]

    @property
    def index(self) -> list[int]:
        """The task of each sample of a group."""
        return [task for task, share in enumerate(self.shares) for _ in range(share)]


def open_mix(
    shards: Path, tasks: dict[str, Task], split: str, seed: int, places: Mapping[str, str] | None = None
) -> Mix:
    """Where the shards of the listed tasks (and of no others that lie on disk) have their row groups.

    `places` says where the folder of each task will be read, as `Storage.publish` does, where that is elsewhere.
    """
    row_groups = [row_groups_of(shards / name / split, places[name] if places else None) for name in tasks]
    return Mix(
        shares=tuple(task.share for task in tasks.values()),
        row_groups=tuple(row_groups),
        seed=seed,
    )


def read_groups(mix: Mix, settings: Ingest, start: int, stop: int) -> dict[str, np.ndarray]:
    """Groups `start` to `stop - 1`, cut: `degraded` and `clean`, each uint8 (groups, samples, 3, crop, crop).

    How a sample is cut depends on (seed, its group, its place). A share `left_alone` of the samples shows nothing of
    its task's damage and is its own target, so that the model learns to do no harm: the clean image, the degraded one
    of another task in the group, or a drawing.
    """
    numbers = range(start, stop)
    generators = [np.random.default_rng([mix.seed, number]) for number in numbers]
    size, side = len(mix.index), settings.crop
    degraded = np.empty((len(numbers), size, 3, side, side), np.uint8)
    clean = np.empty_like(degraded)
    first = 0
    for share, stream in zip(mix.shares, mix.streams, strict=True):
        samples = stream.take(start * share, len(numbers) * share)
        of_task = _cut_samples(samples, generators, share, side)
        for target, squares in zip((degraded, clean), of_task, strict=True):
            target[:, first : first + share] = squares.reshape(len(numbers), share, *squares.shape[1:])
        first += share
    if settings.left_alone:
        for number, rng in enumerate(generators):
            leave_alone(degraded[number], clean[number], mix.index, settings.left_alone, rng)
    return {"degraded": degraded, "clean": clean}


def _cut_samples(
    samples: list[tuple[RowGroup, int]], generators: list[np.random.Generator], share: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """A task's samples, `share` for each generator, cut: degraded and clean (N, 3, side, side)."""
    squares = np.empty((2, len(samples), 3, side, side), np.uint8)
    cuts: Cuts | None = None
    for group, places in by_group(samples).items():
        images = read_group(group)
        if cuts is None:  # all shards of a task have images of one size
            cuts = draw_cuts(generators, share, images[0].shape[1:], side)
        rows = [samples[place][1] for place in places]
        for target, of_kind in zip(squares, images, strict=True):
            target[places] = cut_squares(of_kind, rows, cuts[places], side)
    return squares[0], squares[1]


def leave_alone(
    degraded: np.ndarray, clean: np.ndarray, index: Sequence[int], share: float, rng: np.random.Generator
) -> None:
    """Replace some samples of a group (samples, 3, side, side), in place, by what is to be left as it is."""
    damaged = degraded.copy()
    for place in np.flatnonzero(rng.random(len(index)) < share):
        others = [other for other, task in enumerate(index) if task != index[int(place)]]
        kind = rng.random()
        if kind < 0.4 and others:
            clean[place] = damaged[others[rng.integers(len(others))]]
        elif kind >= 0.85:
            clean[place] = draw(rng, clean.shape[-1]).transpose(2, 0, 1)
        degraded[place] = clean[place]


def mixed_seed(*parts: int) -> int:
    """A 32-bit seed from counters, well mixed and the same everywhere."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
