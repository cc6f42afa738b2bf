"""What fuzzing begins with is taken or refused within the limits, and a minute of it finds nothing."""

import platform
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fuzz.inputs import inputs
from fuzz.limits import CostlyError, limits
from fuzz.raw import LARGE
from fuzz.seeds import seeds
from fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
HAS_ATHERIS = sys.platform == "linux" and platform.machine() == "x86_64"  # as pyproject.toml says


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_taken_or_refused(name):
    found = inputs(name)
    taken = [key for key, data in found.items() if TARGETS[name].run(data)]
    assert 0 < len(taken) < len(found)  # neither half is empty


@pytest.mark.parametrize("name", TARGETS)
def test_changes_give_other_inputs_for_the_same_random_numbers(name):
    target, found = TARGETS[name], list(inputs(name).values())

    def plain(data, rng):
        return data + rng.randbytes(1)

    def made(seed):
        rng = random.Random(seed)
        data = target.change(rng.choice(found), rng, plain)
        return target.cross(data, rng.choice(found), rng) if target.cross and seed % 2 else data

    first = [made(seed) for seed in range(200)]
    assert first == [made(seed) for seed in range(200)]
    assert all(isinstance(data, bytes) for data in first)
    assert len({*first} - {*found}) > 150
    assert max(map(len, first)) < 10 * LARGE


def test_pieces_put_together_again_are_the_file():
    from fuzz import formats

    whole = [data for data in seeds("photo").values() if formats.format_of(data)]
    again = [formats.format_of(data).join(formats.format_of(data).split(data)) == data for data in whole]
    assert len(whole) > 30
    assert sum(again) > 0.8 * len(again)  # some are cut off, or say false lengths on purpose


def burn(data):
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    raise ValueError("and refused")


def fill(data):
    np.ones(300 << 20, np.uint8)


def ask_for_all(data):
    np.ones(1 << 50, np.uint8)


@pytest.mark.parametrize(
    ("check", "seconds", "told"),
    [
        (burn, 0.1, r"took 0\.\d s of the processor; the limit is 0\.1"),
        (fill, 5, r"took \d+ MB of memory; the limit is 200"),
        (ask_for_all, 5, "asked for more than 400 MB of memory"),
    ],
)
def test_what_costs_too_much_is_told_also_where_it_is_refused(check, seconds, told):
    with pytest.raises(CostlyError, match=told), limits(seconds=seconds, memory=200 << 20):
        check(b"")


def never_end():
    while True:
        pass


def test_what_never_ends_is_ended():
    with pytest.raises(CostlyError, match=r"still computing after 0\.2 s"), limits(seconds=0.02):
        never_end()


def test_what_is_cheap_is_left_alone():
    with limits(seconds=5, memory=600 << 20):
        fill(b"")
    with pytest.raises(ValueError, match="as it was"), limits():
        raise ValueError("as it was")


def raise_key_error(data):
    raise KeyError("no")


def test_an_error_that_is_no_refusal_is_a_finding():
    with pytest.raises(KeyError):
        Target(raise_key_error, (ValueError,), None, 1).run(b"")
    assert Target(lambda data: None, (), None, 1).run(b"")


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris has wheels for Linux on x86-64 alone")
@pytest.mark.parametrize(("target", "crashes"), [("photo", True), ("image", True), ("tags", False)])
def test_what_is_known_to_crash_a_library_is_told_from_a_finding(tmp_path, monkeypatch, target, crashes):
    from fuzz.guided import is_known

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    found = tmp_path / f"{target}-0"
    shutil.copy(ROOT / "tests/fixtures/crashes_pi_heif_1.4.0.heic", found)
    assert is_known(found) is crashes


@pytest.mark.slow  # a minute: what CI spends on it
@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris has wheels for Linux on x86-64 alone")
def test_a_minute_of_guided_fuzzing_finds_nothing(tmp_path):
    command = [sys.executable, "-m", "fuzz", "--seconds", "60", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "tests"}, capture_output=True, text=True)
    told = "\n".join(path.read_text() for path in (tmp_path / "finds").glob("*.txt"))
    assert done.returncode == 0, done.stdout + done.stderr + told
    counted = re.findall(r"fuzz: (\w+): in all (\d+) inputs in \d+ s, (\d+) edges of code, 0 finds", done.stdout)
    assert {name for name, *_ in counted} == set(TARGETS)
    for name, tried, edges in counted:
        assert int(tried) > len(inputs(name)), name
        assert int(edges) > 10, name
