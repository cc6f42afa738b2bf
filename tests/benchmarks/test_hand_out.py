"""The benchmark of handing out reads what the stream takes."""

import numpy as np
import pytest

from benchmarks.hand_out import SEGMENTS, STEPS, read
from pipelines.training.stream import Schedule, packed, schedule_windows, unpacked


@pytest.mark.parametrize("workers", [2, 8, 64])
def test_its_segments_are_those_of_one_window_and_hold_their_numbers(workers):
    steps = SEGMENTS // workers * STEPS
    schedule = Schedule(steps, items_per_step=workers, interval=steps, segment=STEPS, workers=workers)
    (window,) = schedule_windows(schedule, 0)
    first, last = window[1]
    items = schedule.items(1, first, last)
    table = packed(read(items.start, items.stop), first, last, 1)
    assert len(table) == STEPS
    numbers = [step["group"] for step in unpacked(table, schedule, first, 1)]
    np.testing.assert_array_equal(np.concatenate(numbers).ravel(), items)
