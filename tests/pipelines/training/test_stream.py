"""What each worker trains on in each step: a function of (step, rank), every item once, from any checkpoint on."""

import functools
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.data import DataContext

from pipelines.training import stream as module
from pipelines.training.stream import (
    TURN,
    Items,
    Rest,
    Schedule,
    Windows,
    packed,
    reader_count,
    schedule_windows,
    unpacked,
    window_dataset,
    worker_items,
)

SCHEDULES = st.builds(
    Schedule,
    steps=st.integers(1, 60),
    items_per_step=st.integers(4, 9),
    interval=st.integers(1, 25),
    segment=st.integers(1, 40),
    workers=st.integers(1, 4),
)


def read(start: int, stop: int) -> Items:
    """Items that say their number, and images as those of the shards: samples of a group, large enough to be told."""
    pixels = [np.random.default_rng(number).integers(0, 256, (2, 3, 4, 5), np.uint8) for number in range(start, stop)]
    return {"number": np.arange(start, stop), "images": np.stack(pixels)}


def same(items: Items, expected: Items) -> None:
    assert list(items) == list(expected)
    for name, values in expected.items():
        assert items[name].dtype == values.dtype
        np.testing.assert_array_equal(items[name], values)


def numbers(schedule: Schedule, first: int, last: int) -> list[int]:
    return [
        n
        for step in range(first, last)
        for rank in range(schedule.workers)
        for n in schedule.items(rank, step, step + 1)
    ]


@given(SCHEDULES)
def test_every_item_comes_once_and_none_of_another_interval(schedule):
    assert sorted(numbers(schedule, 0, schedule.steps)) == list(range(schedule.steps * schedule.items_per_step))
    for start in range(0, schedule.steps, schedule.interval):
        end = min(start + schedule.interval, schedule.steps)
        expected = range(start * schedule.items_per_step, end * schedule.items_per_step)
        assert sorted(numbers(schedule, start, end)) == list(expected)  # so the number of workers may change here


@given(SCHEDULES, st.data())
def test_a_worker_reads_one_range_without_gaps_between_checkpoints(schedule, data):
    rank = data.draw(st.integers(0, schedule.workers - 1))
    for first, last in schedule.segments(data.draw(st.integers(0, schedule.steps - 1))):
        each = [list(schedule.items(rank, step, step + 1)) for step in range(first, last)]
        assert list(itertools.chain(*each)) == list(schedule.items(rank, first, last))
        assert {len(items) for items in each} == {schedule.count(rank)}


@given(SCHEDULES, st.data())
def test_segments_cover_the_steps_from_anywhere_on_within_intervals(schedule, data):
    first = data.draw(st.integers(0, schedule.steps - 1))
    windows = schedule_windows(schedule, first)
    segments = [segment for window in windows for segment in window]
    assert [step for segment in segments for step in range(*segment)] == list(range(first, schedule.steps))
    assert all((last - 1) // schedule.interval == start // schedule.interval for start, last in segments)
    assert all(len(window) <= max(module.WINDOW // schedule.workers, module.EACH) for window in windows)


@pytest.mark.parametrize(
    ("workers", "spare", "count"),
    [(1, 0, 2), (2, 0, 2), (2, 9.5, 4), (8, 0, 8), (8, 3.9, 8), (8, 12, 12), (64, 192, 128)],
)
def test_two_processes_read_for_each_worker_where_cores_are_left(workers, spare, count):
    assert reader_count(workers, spare) == count


@given(SCHEDULES)
def test_counts_differ_by_one_at_most_and_weights_average_to_one(schedule):
    counts = [schedule.count(rank) for rank in range(schedule.workers)]
    assert sum(counts) == schedule.items_per_step
    assert max(counts) - min(counts) <= 1
    assert sum(schedule.weight(rank) for rank in range(schedule.workers)) == pytest.approx(schedule.workers)


def test_more_workers_than_items_are_refused():
    with pytest.raises(ValueError, match="at most as many as a step has items to share out, 2, got 3"):
        Schedule(steps=1, items_per_step=2, interval=1, segment=1, workers=3).count(0)


def test_a_row_of_another_step_or_worker_is_refused():
    schedule = Schedule(steps=9, items_per_step=4, interval=9, segment=8, workers=2)
    rows = packed(read(8, 14), 3, 6, rank=1)
    (items,) = unpacked(rows.slice(1, 1), schedule, 4, 1)
    same(items, read(10, 12))
    with pytest.raises(RuntimeError, match=r"expected steps from 5 on of worker 1 of 2, got \[4\]\.\.\. of \{1\}"):
        list(unpacked(rows.slice(1, 1), schedule, 5, 1))
    with pytest.raises(
        RuntimeError, match=r"expected steps from 3 on of worker 0 of 2, got \[3, 4, 5\]\.\.\. of \{1\}"
    ):
        list(unpacked(rows, schedule, 3, 0))
    mixed = pa.concat_tables([rows.slice(0, 1), rows.slice(2, 1)])
    with pytest.raises(RuntimeError, match=r"got \[3, 5\]\.\.\. of \{1\}: Ray Data has split its blocks"):
        list(unpacked(mixed, schedule, 3, 1))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 9), st.integers(0, 3))
def test_items_are_the_same_after_packing_and_lie_where_they_were_packed(steps, count, first, rank):
    schedule = Schedule(steps=99, items_per_step=9, interval=99, segment=99, workers=4)
    items = read(7, 7 + steps * count)
    table = packed(items, first, first + steps, rank)
    assert table.num_rows == steps
    assert table["images"].type == pa.fixed_shape_tensor(pa.uint8(), (count, 2, 3, 4, 5))
    each = list(unpacked(table, schedule, first, rank))
    assert len(each) == steps
    for number, of_step in enumerate(each):
        same(of_step, read(7 + number * count, 7 + (number + 1) * count))
        assert np.shares_memory(of_step["images"], items["images"])


def test_chunks_of_a_block_are_put_together():
    schedule = Schedule(steps=9, items_per_step=2, interval=9, segment=8, workers=1)
    table = packed(read(0, 8), 0, 4, rank=0)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 3)])
    for step, items in enumerate(unpacked(chunked, schedule, 0, 0)):
        same(items, read(2 * step, 2 * step + 2))


def consume(schedule: Schedule, window: list, rank: int, shard) -> list[int]:
    """The numbers of the items in the order that they come in; their bytes are those that were read."""
    found, step = [], window[0][0]
    for table, segment in zip(shard.iter_batches(batch_size=None, batch_format="pyarrow"), window, strict=True):
        assert len(table) == segment[1] - segment[0]  # a block a read
        for items in unpacked(table, schedule, step, rank):
            first = int(items["number"][0])
            same(items, read(first, first + schedule.count(rank)))
            found += items["number"].tolist()
            step += 1
    return found


@pytest.mark.slow
def test_real_ray_gives_each_of_three_workers_its_own(local_ray):
    """Unequal counts, and a last interval and segments that are shorter."""
    schedule = Schedule(steps=23, items_per_step=7, interval=10, segment=6, workers=3)
    (window,) = schedule_windows(schedule, 4)
    shards = window_dataset(read, schedule, window).streaming_split(3, equal=True)
    with ThreadPoolExecutor(3) as workers:  # all at once, as training workers read
        found = list(workers.map(functools.partial(consume, schedule, window), range(3), shards))
    assert found == [[n for step in range(4, 23) for n in schedule.items(rank, step, step + 1)] for rank in range(3)]


@pytest.mark.slow
def test_one_window_follows_another(local_ray, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 3)
    monkeypatch.setattr(module, "EACH", 3)
    monkeypatch.setattr("ray.train.collective.broadcast_from_rank_zero", lambda data: data)  # a worker alone
    schedule = Schedule(steps=10, items_per_step=2, interval=8, segment=4, workers=1)
    assert len(schedule_windows(schedule, 1)) == 2
    steps = list(worker_items(read, schedule, 1, 0))
    assert len(steps) == 9
    for step, items in enumerate(steps, 1):
        same(items, read(2 * step, 2 * step + 2))
    assert list(worker_items(read, schedule, 10, 0)) == []  # a run that had ended


@pytest.mark.slow
def test_the_executor_of_ray_rests_while_more_is_ready_than_is_taken(local_ray, monkeypatch):
    turns = []

    class Counted(Rest):
        def on_execution_step(self, executor):
            turns.append(time.monotonic())
            super().on_execution_step(executor)

    context = DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [])
    schedule = Schedule(steps=40, items_per_step=4, interval=40, segment=4, workers=2)
    windows = schedule_windows(schedule, 0)
    Windows(read, schedule, windows)
    assert context.custom_execution_callback_classes == [Rest]
    context.custom_execution_callback_classes[:] = [Counted]
    batches = iter(window_dataset(read, schedule, windows[0]).iter_batches(batch_size=None, batch_format="pyarrow"))
    first = len(next(batches))
    before = len(turns)
    time.sleep(10 * TURN)
    assert len(turns) - before <= 11
    assert first + sum(len(table) for table in batches) == 80  # a row a step and worker
