"""The simulated cluster loses nothing, is bound by what is slowest, and has measured rows right."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cluster_parts import Cluster
from benchmarks.cluster_rows import handed, reading, steps
from benchmarks.cluster_simulation import Simulation

FREE = Cluster(nodes=2, workers=2, cores=4, samples=10, steps=40, segment_steps=4, group_rows=8, segment_groups=5,
               row_bytes=1e5, sample_bytes=5e4, read=0.0)  # fmt: skip  # all but what a test adds costs nothing


def run(cluster=FREE, **changes):
    return Simulation(dataclasses.replace(cluster, **changes)).run()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(1, 5), st.integers(1, 40),
    st.sampled_from([0.0, 4e6, math.inf]), st.sampled_from([0.0, 0.05]), st.integers(1, 2),
)  # fmt: skip
def test_all_that_is_read_is_trained_on_once(nodes, workers, cores, count, length, window, ahead, rest, readers):
    outcome = run(nodes=nodes, workers=workers, cores=cores, steps=count, segment_steps=length, window=window,
                  read_ahead=ahead, rest=rest, readers=readers, read=1e-4, start=0.2, link_rate=1e9, storage_rate=1e9,
                  convert=1e-5, forward=0.01, backward=0.02, buckets=(1e6, 1e6), jitter=0.1)  # fmt: skip
    assert outcome.samples_read == outcome.samples_trained == nodes * workers * count * FREE.samples
    assert outcome.segments == nodes * workers * -(-count // length)
    assert outcome.seconds > 0.2 + 0.02 * count / 2
    assert all(0 <= spent < 1.1 for spent in outcome.busy.values())


def test_without_anything_to_wait_for_the_steps_say_how_fast():
    outcome = run(forward=0.02, backward=0.05, update=0.01, steps=100)
    assert outcome.rate == pytest.approx(4 * 10 / 0.08, rel=0.01)
    assert outcome.wait == pytest.approx(0, abs=0.01)
    assert outcome.meet == pytest.approx(0, abs=0.01)
    assert outcome.step == pytest.approx(0.08, rel=0.01)


@pytest.mark.parametrize(("cores", "together"), [(1, 1), (2, 2), (8, 2)])
def test_readers_say_how_fast_where_steps_cost_nothing(cores, together):
    """There are two for one worker, and each takes a core."""
    outcome = run(nodes=1, workers=1, cores=cores, read=1e-3, steps=400)
    assert outcome.rate == pytest.approx(together / 1e-3, rel=0.05)


def test_storage_says_how_fast_where_it_is_slowest():
    outcome = run(storage_rate=1e8, steps=400)
    assert outcome.rate == pytest.approx(1e8 / 1e5, rel=0.05)  # five row groups of eight rows are one segment's samples
    assert outcome.busy["storage"] == pytest.approx(1, abs=0.05)


def test_numbers_are_made_between_steps():
    outcome = run(forward=0.03, convert=1e-3, steps=200)
    assert outcome.rate == pytest.approx(4 * 10 / 0.04, rel=0.01)
    assert outcome.wait == pytest.approx(0.25, abs=0.01)


def test_gradients_go_round_the_ring_after_the_backward_pass_but_for_the_first_bucket():
    outcome = run(nodes=4, workers=1, backward=0.1, buckets=(1e6, 9e6), link_rate=1e9, sample_bytes=0, row_bytes=0,
                  link_latency=1e-3, steps=100)  # fmt: skip
    ring = 2 * 3 / 4 * 9e6 / 1e9 + 2 * 4 * 1e-3
    assert outcome.step == pytest.approx(0.1 + ring + 2 * 4 * 1e-3, rel=0.01)  # and the tasks' errors, a few bytes


def test_one_worker_exchanges_nothing():
    assert run(nodes=1, workers=1, backward=0.1, buckets=(1e9,), inside_rate=1.0).step == pytest.approx(0.1, rel=0.01)


def test_two_that_meet_wait_for_the_slower_one():
    outcome = run(nodes=1, workers=2, forward=0.1, jitter=0.1, steps=2000, segment_steps=500)
    assert outcome.step == pytest.approx(0.1 * (1 + 0.1 / math.sqrt(math.pi)), rel=0.01)


@pytest.mark.parametrize("what", ["storage_rate", "link_rate", "inside_rate"])
def test_more_bandwidth_is_never_slower(what):
    given = {"storage_rate": 4e8, "link_rate": 3e8, "inside_rate": 1e9, "buckets": (1e6, 5e6), "backward": 0.02,
             "rest": 0.05, "read": 1e-4}  # fmt: skip
    rates = [run(**(given | {what: given[what] * times})).rate for times in (0.1, 0.3, 1, 3, math.inf)]
    assert all(more > 0.98 * less for less, more in itertools.pairwise(rates))  # turns may fall otherwise
    assert rates[0] < 0.7 * rates[-1]


def test_what_is_read_beside_another_worker_comes_through_both_links():
    here = run(nodes=1, workers=2, link_rate=1e8, steps=100).rate
    assert here == pytest.approx(1e8 / 1e5, rel=0.05)  # from the storage alone
    both = run(nodes=2, workers=2, link_rate=1e8, steps=100).rate / 2
    assert both == pytest.approx(1e8 / (1e5 + 5e4 / 2), rel=0.1)  # and one of two segments from the other node


def test_a_window_that_starts_more_slowly_than_half_of_one_lasts_is_waited_for():
    work = {"forward": 0.1, "steps": 200, "segment_steps": 5, "window": 8, "in_flight": 2}  # two segments each: 1 s
    assert run(**work, start=0.4).wait == pytest.approx(0, abs=0.02)
    assert run(**work, start=1.5).wait == pytest.approx(0.5, abs=0.02)  # a second late for each second


def test_what_may_wait_is_limited():
    simulation = Simulation(dataclasses.replace(FREE, forward=0.1, read_ahead=10 * FREE.segment_bytes))
    window = simulation.window(0)
    most = []
    while simulation.env.now < 1:
        simulation.env.step()
        most.append(window.held)
    assert max(most) == 10


def test_the_same_seed_gives_the_same():
    cluster = dataclasses.replace(FREE, forward=0.1, jitter=0.2, buckets=(1e6,), rest=0.05)
    assert Simulation(cluster, 1).run() == Simulation(cluster, 1).run() != Simulation(cluster, 2).run()


@pytest.mark.parametrize("row", [*steps(), *reading()[:2], *handed()], ids=lambda row: row.name)
def test_measured_rows_come_out_within_a_fifth(row):
    assert row.simulated(Simulation(row.cluster).run()) == pytest.approx(row.measured, rel=0.2)
