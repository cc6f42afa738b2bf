"""Shards of the listed tasks to groups of encoded samples, by their number alone.

A *group* holds `share` samples of every task, in task order. So any split over workers and any cut into batches keeps
the task mix exact, and training can continue at any step: group g takes, from each task, the samples number g * share
and up of that task's own endless shuffled stream. `pipelines.training.stream` streams the groups to the workers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.common.params import Task
from pipelines.data.shards import RowGroup, RowGroups, ShardError, read_rows, row_groups_of


class TaskStream:
    """The endless shuffled stream of one task's samples: pass after pass, each in an order of its own."""

    def __init__(self, row_groups: RowGroups, seed: int) -> None:
        self.row_groups = row_groups
        self.seed = seed
        self.rows = int(row_groups.rows.sum())

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

    @functools.lru_cache(maxsize=2)  # noqa: B019  the stream dies with its read task
    def _pass(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng([self.seed, number]).permutation(len(self.row_groups))
        return order, np.cumsum(self.row_groups.rows[order])


@dataclass(frozen=True)
class Mix:
    """What the stream is made of: each task's share and row groups, in task order."""

    shares: tuple[int, ...]
    row_groups: tuple[RowGroups, ...]
    seed: int

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
    """Read the footers of the shards of the listed tasks (and of no others that lie on disk).

    `places` says where the folder of each task will be read, where that is elsewhere.
    """
    row_groups = [row_groups_of(shards / name / split, f"{places[name]}/{split}" if places else None) for name in tasks]
    for name, groups in zip(tasks, row_groups, strict=True):
        if not groups.rows.sum():
            raise ShardError(f"{shards / name / split}: expected samples, got shards without rows; remake them")
    return Mix(
        shares=tuple(task.share for task in tasks.values()),
        row_groups=tuple(row_groups),
        seed=seed,
    )


def read_groups(mix: Mix, start: int, stop: int) -> pa.Table:
    """Groups `start` to `stop - 1`, a row each.

    Columns: group (int64), degraded and clean (lists of PNG bytes in task order), origin (list of strings, where each
    sample is stored).
    """
    by_task = []
    for share, stream in zip(mix.shares, mix.streams(), strict=True):
        rows = read_rows(stream.take(start * share, (stop - start) * share))
        by_task.append([rows[i : i + share] for i in range(0, len(rows), share)])
    groups = [list(itertools.chain(*parts)) for parts in zip(*by_task, strict=True)]
    column = {name: [[row[name] for row in group] for group in groups] for name in ("degraded", "clean", "origin")}
    return pa.table(
        {
            "group": pa.array(range(start, stop), pa.int64()),
            "degraded": pa.array(column["degraded"], pa.list_(pa.binary())),
            "clean": pa.array(column["clean"], pa.list_(pa.binary())),
            "origin": pa.array(column["origin"], pa.list_(pa.string())),
        }
    )


def mixed_seed(*parts: int) -> int:
    """A 32-bit seed from counters, well mixed and the same everywhere."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
