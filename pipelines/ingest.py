"""Shards of the listed tasks to groups of encoded samples: a stream that is a function of (seed, step) alone.

A *group* holds `share` samples of every task, in task order; a row of the Ray dataset is one group of encoded
images. So any split over workers and any cut into batches keeps the task mix exact, and training can continue at any
step: group g takes, from each task, the samples number g * share and up of that task's own endless shuffled stream.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data

from pipelines.params import Task
from pipelines.shards import RowGroup, ShardError, read_rows, row_groups_of

SEGMENT = 32  # groups made by one read: a row group of each task where shares are 1 and row groups have 32 rows
MAX_BLOCKS = 1000  # read tasks that Ray plans at once


class TaskStream:
    """The endless shuffled stream of one task's samples: pass after pass, each in an order of its own."""

    def __init__(self, row_groups: Sequence[RowGroup], seed: int) -> None:
        self.row_groups = row_groups
        self.seed = seed
        self.rows = sum(group.rows for group in row_groups)

    def take(self, start: int, count: int) -> list[tuple[RowGroup, int]]:
        """Samples number `start` to `start + count - 1` as (row group, row in it)."""
        samples: list[tuple[RowGroup, int]] = []
        while len(samples) < count:
            number, offset = divmod(start + len(samples), self.rows)
            order, ends = self._pass(number)
            place = bisect.bisect_right(ends, offset)
            group = self.row_groups[order[place]]
            rows = np.random.default_rng([self.seed, number, int(order[place])]).permutation(group.rows)
            skip = offset - (ends[place] - group.rows)
            samples += [(group, int(row)) for row in rows[skip : skip + count - len(samples)]]
        return samples

    @functools.lru_cache(maxsize=2)  # noqa: B019  the stream dies with its read task
    def _pass(self, number: int) -> tuple[np.ndarray, list[int]]:
        order = np.random.default_rng([self.seed, number]).permutation(len(self.row_groups))
        return order, np.cumsum([self.row_groups[i].rows for i in order]).tolist()


@dataclass(frozen=True)
class Mix:
    """What the stream is made of: each task's share and row groups, in task order."""

    shares: tuple[int, ...]
    row_groups: tuple[tuple[RowGroup, ...], ...]
    seed: int

    def streams(self) -> list[TaskStream]:
        """One stream per task, with a seed of its own."""
        return [TaskStream(groups, mixed_seed(self.seed, number)) for number, groups in enumerate(self.row_groups)]

    @property
    def index(self) -> list[int]:
        """The task of each sample of a group."""
        return [task for task, share in enumerate(self.shares) for _ in range(share)]


def open_mix(shards: Path, tasks: dict[str, Task], split: str, seed: int) -> Mix:
    """Read the footers of the shards of the listed tasks (and of no others that lie on disk)."""
    row_groups = [tuple(row_groups_of(shards / name / split)) for name in tasks]
    for name, groups in zip(tasks, row_groups, strict=True):
        if not sum(group.rows for group in groups):
            raise ShardError(f"{shards / name / split}: expected samples, got shards without rows; remake them")
    return Mix(
        shares=tuple(task.share for task in tasks.values()),
        row_groups=tuple(row_groups),
        seed=seed,
    )


def group_dataset(mix: Mix, first: int, last: int, chunk: int) -> ray.data.Dataset:
    """Groups `first` to `last - 1` as a Ray dataset of encoded images, read as it is consumed.

    Columns: group (int64), start (int64, = first), degraded and clean (lists of PNG bytes in task order), origin
    (list of strings, where each sample is stored).
    """
    starts = list(range(first, last, chunk))
    plan = ray.data.from_items(
        [{"start": start, "stop": min(start + chunk, last)} for start in starts],
        override_num_blocks=min(len(starts), MAX_BLOCKS),
    )
    return plan.map_batches(_ReadGroups(mix, first), batch_size=1, batch_format="pandas")


class _ReadGroups:
    """Turns the numbers of a segment's groups into the groups, where Ray runs it."""

    def __init__(self, mix: Mix, first: int) -> None:
        self.mix, self.first = mix, first

    def __call__(self, segment) -> pa.Table:
        start, stop = int(segment["start"].iloc[0]), int(segment["stop"].iloc[0])
        groups = read_groups(self.mix, start, stop)
        return groups.append_column("start", pa.array([self.first] * (stop - start), pa.int64()))


def read_groups(mix: Mix, start: int, stop: int) -> pa.Table:
    """Groups `start` to `stop - 1`: the columns of `group_dataset` but its `start`."""
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
