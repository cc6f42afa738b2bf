"""How long models take: in turn, the shortest, and long enough for a busy moment not to decide."""

import itertools
from types import SimpleNamespace

import pytest

from pipelines.scoring import speed


@pytest.fixture
def clock(monkeypatch):
    """`seconds` of each restoration, by model; and who restored, in order."""
    state = SimpleNamespace(now=0.0, seconds={}, who=[])

    def restore(model, picture, tasks):
        assert picture.shape == (speed.SIDE, speed.SIDE, 3)
        state.who.append(model.name)
        state.now += next(state.seconds[model.name])

    monkeypatch.setattr(speed, "restore_tasks", restore)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: state.now)
    return state


def model(name):
    return SimpleNamespace(name=name, config=SimpleNamespace(tasks=("denoise", "derain")))


def test_the_shortest_turn_counts_and_they_take_turns(clock):
    clock.seconds = {"old": itertools.cycle([2.0, 1.0, 3.0]), "new": itertools.cycle([4.0, 2.0, 5.0])}
    megapixels = speed.SIDE**2 / 1e6
    assert speed.seconds_per_megapixel({name: model(name) for name in clock.seconds}) == {
        "old": 1.0 / megapixels,
        "new": 2.0 / megapixels,
    }
    assert clock.who == ["old", "new"] * speed.TURNS


def test_a_busy_moment_does_not_make_a_fast_model_slow(clock):
    """Three turns of 50 ms fall into one."""
    busy = int(speed.SECONDS / 2 / 0.1)
    clock.seconds = {
        "old": itertools.repeat(0.05),
        "new": itertools.chain(itertools.repeat(0.1, busy), itertools.repeat(0.05)),
    }
    told = speed.seconds_per_megapixel({name: model(name) for name in clock.seconds})
    assert told["new"] == pytest.approx(told["old"])
    assert len(clock.who) >= 2 * speed.SECONDS / 0.1
