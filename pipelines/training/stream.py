"""The items of each step, shared out among the workers: a Ray stream that is a function of (step, rank) alone.

An *item* is what a step trains on, known by its number: a group of samples, a crop. Step s of a run trains on the next
`items_per_step` items; between two checkpoints each worker takes its items from a range of its own, so that what it
reads lies together. So a run that goes on from a checkpoint with as many workers sees what it would have seen, and
with another number of workers each item still comes once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.train.collective
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.connection import quiet_data
from pipelines.data.rows import one_array

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

Items = dict[str, np.ndarray]  # by name, of N items each (N, ...)
Read = Callable[[int, int], Items]  # (start, stop) -> items start to stop - 1

READERS = 2  # at least, so that one can read ahead
WINDOW = 200  # reads planned at once: the more there are, the longer each turn of the executor of Ray takes
EACH = 25  # of them for each worker, where that is more: while they last, the next ones' readers start, in seconds
TURN = 0.05  # seconds at least between two turns of that executor


@dataclass(frozen=True)
class Schedule:
    """Which items each worker trains on in each step."""

    steps: int  # of the whole run
    items_per_step: int  # over all workers
    interval: int  # steps between checkpoints
    segment: int  # items of a worker made by one read, about
    workers: int

    def count(self, rank: int) -> int:
        """Items of a worker in a step; the first workers take what does not divide.

        Raises ValueError where there are more workers than items in a step.
        """
        if self.workers > self.items_per_step:
            raise ValueError(
                f"ray.workers: expected at most as many as a step has items to share out, {self.items_per_step}, got "
                f"{self.workers}"
            )
        each, rest = divmod(self.items_per_step, self.workers)
        return each + (rank < rest)

    def weight(self, rank: int) -> float:
        """A worker's count relative to the mean count."""
        return self.count(rank) * self.workers / self.items_per_step

    def items(self, rank: int, first: int, last: int) -> range:
        """Numbers of the items of a worker in the steps `first` to `last - 1`, of one interval."""
        start = first - first % self.interval
        length = min(self.interval, self.steps - start)
        before = sum(self.count(other) for other in range(rank))
        offset, count = start * self.items_per_step + length * before, self.count(rank)
        return range(offset + (first - start) * count, offset + (last - start) * count)

    def segments(self, first: int) -> Iterator[tuple[int, int]]:
        """Ranges of steps from `first` to the end that are read at once by each worker."""
        length = max(self.segment // self.count(0), 1)
        while first < self.steps:
            end = min(first + length, first - first % self.interval + self.interval, self.steps)
            yield first, end
            first = end


def worker_items(read: Read, schedule: Schedule, first: int, rank: int) -> Iterator[Items]:
    """This worker's items from step `first` on, step by step; every worker of the run calls it once, at its start.

    Raises RuntimeError where Ray hands out other items than those of this worker and step.
    """
    if first >= schedule.steps:
        return
    windows = schedule_windows(schedule, first)
    made = None
    if rank == 0:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        made = ray.remote(Windows).options(num_cpus=0, scheduling_strategy=here).remote(read, schedule, windows)
    made = ray.train.collective.broadcast_from_rank_zero(made)

    def open_window(number: int) -> Iterator[pa.Table]:
        shard = ray.get(made.shard.remote(number, rank))
        # Whole blocks: to slice a row a step out of each is Ray's slowest way.
        tables = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
        return itertools.chain([next(tables)], tables)

    step = first
    with ThreadPoolExecutor(1, thread_name_prefix="window") as ahead:
        coming = ahead.submit(open_window, 0)
        for number, window in enumerate(windows):
            middle, tables = (window[0][0] + window[-1][1]) // 2, coming.result()
            for table in tables:
                for items in unpacked(table, schedule, step, rank):
                    if step == middle and number + 1 < len(windows):  # starting a window takes seconds
                        coming = ahead.submit(open_window, number + 1)
                    yield items
                    step += 1


def schedule_windows(schedule: Schedule, first: int) -> list[list[tuple[int, int]]]:
    """The segments from step `first` on, in lists: all workers' together are at most WINDOW, or EACH a worker."""
    segments, length = schedule.segments(first), max(WINDOW // schedule.workers, EACH)
    return list(iter(lambda: list(itertools.islice(segments, length)), []))


class Windows:
    """Makes the stream window by window, in a process of its own beside the first worker."""

    def __init__(self, read: Read, schedule: Schedule, windows: list[list[tuple[int, int]]]) -> None:
        quiet_data()
        context = ray.data.DataContext.get_current()
        # A block a read, whatever its size: the splitter hands blocks out in turn, so each worker gets its own.
        context.target_max_block_size = None
        context.custom_execution_callback_classes.append(Rest)
        self._read, self._schedule, self._windows = read, schedule, windows
        self._shards: dict[int, list[ray.data.DataIterator]] = {}

    def shard(self, number: int, rank: int) -> ray.data.DataIterator:
        """A worker's shard of a window."""
        if number not in self._shards:
            self._shards[number] = window_dataset(self._read, self._schedule, self._windows[number]).streaming_split(
                self._schedule.workers, equal=True
            )
            self._shards.pop(number - 2, None)  # of the window before, some worker may still read
        return self._shards[number][rank]


class Rest(ExecutionCallback):
    """Has the executor of Ray rest after each turn.

    While there is more ready than is taken, which is always, it turns without a pause (Ray 2.60), and so takes from a
    worker as much of a core as it gets.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Called by Ray at the end of a turn."""
        time.sleep(TURN)


def reader_count(workers: int, spare: float) -> int:
    """How many processes read for so many workers, where they leave `spare` CPUs: one each, two each at most."""
    return max(workers, READERS, min(int(spare), 2 * workers))


def window_dataset(read: Read, schedule: Schedule, window: list[tuple[int, int]]) -> ray.data.Dataset:
    """The items of all workers in the steps of `window`, read as they are consumed.

    A row is what one worker trains on in one step: step, rank, and by name a tensor of the items that `read` gives. A
    block is a segment of one worker; the workers take turns. Reading reserves no CPU, so workers on all of them do not
    shut it out. It is done by actors, which stay: the process of a task ends after each read where all CPUs are taken,
    and starting the next one's costs seconds of a core.
    """
    count = len(window) * schedule.workers
    segments = ray.data.from_items([{"segment": number} for number in range(count)], override_num_blocks=count)
    return segments.map_batches(
        _ReadSegment,
        fn_constructor_args=(read, schedule, window),
        batch_size=1,
        batch_format="numpy",
        num_cpus=0,
        concurrency=reader_count(schedule.workers, ray.available_resources().get("CPU", 0)),
    )


class _ReadSegment:
    """Turns the number of a segment into its rows, where Ray runs it."""

    def __init__(self, read: Read, schedule: Schedule, window: list[tuple[int, int]]) -> None:
        self.read, self.schedule, self.window = read, schedule, window

    def __call__(self, batch: dict) -> pa.Table:
        segment, rank = divmod(int(batch["segment"][0]), self.schedule.workers)
        first, last = self.window[segment]
        items = self.schedule.items(rank, first, last)
        return packed(self.read(items.start, items.stop), first, last, rank)


def packed(items: Items, first: int, last: int, rank: int) -> pa.Table:
    """Items of the steps `first` to `last - 1` of a worker to a row a step, whose tensors are (items, ...)."""
    steps = last - first
    tensors = {
        name: pa.FixedShapeTensorArray.from_numpy_ndarray(values.reshape(steps, -1, *values.shape[1:]))
        for name, values in items.items()
    }
    return pa.table({"step": np.arange(first, last), "rank": np.full(steps, rank)} | tensors)


def unpacked(table: pa.Table, schedule: Schedule, step: int, rank: int) -> Iterator[Items]:
    """The items of each step in a block that begins with `step`; nothing is copied that lies together."""
    came = (table["step"].to_pylist(), set(table["rank"].to_pylist()))
    if came != (list(range(step, step + len(table))), {rank}):
        raise RuntimeError(
            f"training data: expected steps from {step} on of worker {rank} of {schedule.workers}, got {came[0][:3]}"
            f"... of {came[1]}: Ray Data has split its blocks in another way than Ray 2.60 does"
        )
    names = [name for name in table.column_names if name not in ("step", "rank")]
    tensors = {name: one_array(table[name]).to_numpy_ndarray() for name in names}
    for row in range(len(table)):
        yield {name: values[row] for name, values in tensors.items()}
