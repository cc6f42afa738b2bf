"""The endless stream of a task: pass after pass, each in its own order, readable from anywhere."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.row_groups import RowGroup, RowGroups
from pipelines.training.groups import TaskStream

files = st.lists(st.lists(st.integers(1, 6), max_size=3), min_size=1, max_size=4).filter(any)
row_groups = files.map(lambda rows: RowGroups([f"{number}.parquet" for number in range(len(rows))], rows))


@given(files)
def test_row_groups_are_known_by_their_place(rows):
    groups = RowGroups([f"{number}.parquet" for number in range(len(rows))], rows)
    assert list(groups) == [
        RowGroup(f"{file}.parquet", number, count)
        for file, counts in enumerate(rows)
        for number, count in enumerate(counts)
    ]
    assert len(groups) == len(list(groups))


@settings(deadline=None, max_examples=50)
@given(row_groups, st.integers(0, 99))
def test_each_pass_sees_each_row_once_and_reads_row_groups_whole(groups, seed):
    stream = TaskStream(groups, seed)
    everything = {(group, row) for group in groups for row in range(group.rows)}
    samples = stream.take(0, 3 * stream.rows)
    for number in range(3):
        of_pass = samples[number * stream.rows : (number + 1) * stream.rows]
        assert set(of_pass) == everything
        assert len(list(itertools.groupby(of_pass, key=lambda sample: sample[0]))) == len(groups)


def test_order_differs_by_pass_and_seed_and_repeats_by_seed():
    groups = RowGroups(["a", "b"], [[5, 5, 5], [5]])
    samples = TaskStream(groups, 1).take(0, 60)
    passes = [tuple(samples[start : start + 20]) for start in (0, 20, 40)]
    assert len(set(passes)) == 3
    assert TaskStream(groups, 1).take(0, 60) == samples
    assert TaskStream(groups, 2).take(0, 20) != samples[:20]


@settings(deadline=None, max_examples=100)
@given(row_groups, st.integers(0, 40), st.integers(0, 40))
def test_any_part_is_a_slice_of_the_whole(groups, start, count):
    stream = TaskStream(groups, 7)
    assert stream.take(start, count) == stream.take(0, start + count)[start:]
