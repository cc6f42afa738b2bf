"""What each worker trains on in each step: a function of (step, rank), every item once, from any checkpoint on."""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training import stream as module
from pipelines.training.stream import Schedule, packed, schedule_windows, unpacked, window_dataset, worker_items

SCHEDULES = st.builds(
    Schedule,
    steps=st.integers(1, 60),
    items_per_step=st.integers(4, 9),
    interval=st.integers(1, 25),
    segment=st.integers(1, 40),
    workers=st.integers(1, 4),
)


def read(start: int, stop: int) -> pa.Table:
    """Items that say their number, one column as nested as that of the shards."""
    return pa.table(
        {"number": range(start, stop), "content": [[f"{number}".encode()] for number in range(start, stop)]}
    )


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
    assert all(len(window) * schedule.workers <= module.WINDOW for window in windows)


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
    assert unpacked(rows.slice(1, 1), schedule, 4, 1).to_pylist() == read(10, 12).to_pylist()
    with pytest.raises(RuntimeError, match="expected step 5 of worker 1 of 2, got 1 rows from step 4 of worker 1"):
        unpacked(rows.slice(1, 1), schedule, 5, 1)
    with pytest.raises(RuntimeError, match="expected step 3 of worker 0 of 2, got 1 rows from step 3 of worker 1"):
        unpacked(rows.slice(0, 1), schedule, 3, 0)


def consume(schedule: Schedule, window: list, rank: int, shard) -> list[int]:
    found = []
    steps = [step for segment in window for step in range(*segment)]
    for step, row in zip(steps, shard.iter_batches(batch_size=1, batch_format="pyarrow"), strict=True):
        items = unpacked(row, schedule, step, rank)
        assert items["content"].to_pylist() == [[f"{n}".encode()] for n in items["number"].to_pylist()]
        found += items["number"].to_pylist()
    return found


def test_real_ray_gives_each_of_three_workers_its_own(local_ray):
    """Unequal counts, and a last interval and segments that are shorter."""
    schedule = Schedule(steps=23, items_per_step=7, interval=10, segment=6, workers=3)
    (window,) = schedule_windows(schedule, 4)
    shards = window_dataset(read, schedule, window).streaming_split(3, equal=True)
    with ThreadPoolExecutor(3) as workers:  # all at once, as training workers read
        found = list(workers.map(functools.partial(consume, schedule, window), range(3), shards))
    assert found == [[n for step in range(4, 23) for n in schedule.items(rank, step, step + 1)] for rank in range(3)]


def test_one_window_follows_another(local_ray, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 3)
    monkeypatch.setattr("ray.train.collective.broadcast_from_rank_zero", lambda data: data)  # a worker alone
    schedule = Schedule(steps=10, items_per_step=2, interval=8, segment=4, workers=1)
    assert len(schedule_windows(schedule, 1)) == 2
    tables = list(worker_items(read, schedule, 1, 0))
    assert [table["number"].to_pylist() for table in tables] == [[2 * step, 2 * step + 1] for step in range(1, 10)]
    assert list(worker_items(read, schedule, 10, 0)) == []  # a run that had ended
