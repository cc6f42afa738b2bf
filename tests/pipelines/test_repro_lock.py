"""`make repro` for one caller at a time, with a DVC that only waits."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DVC = """
import os, sys, time
if "repro" in sys.argv:
    with open("begun.txt", "w") as file:
        file.write(str(os.getpid()))
    os.rename("begun.txt", "begun")
    time.sleep(float(os.environ["SECONDS"]))
"""


@pytest.fixture
def start(tmp_path):
    """Start `python -m pipelines.repro` in a folder of its own, with a DVC that works for some seconds."""
    (tmp_path / "dvc.py").write_text(DVC)

    def caller(seconds: float) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "nowhere", "SECONDS": str(seconds)}
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.repro"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    return caller


def child_of(folder: Path) -> int:
    """The process of the DVC that has begun."""
    until = time.monotonic() + 30
    while not (folder / "begun").exists():
        assert time.monotonic() < until, "DVC never began"
        time.sleep(0.02)
    return int((folder / "begun").read_text())


def test_the_second_caller_waits_for_what_a_killed_first_one_began(start, tmp_path):
    first = start(60)
    child = child_of(tmp_path)
    try:
        first.kill()
        first.wait()
        os.kill(child, 0)  # it works on
        second = start(0)
        told = second.communicate(timeout=30)[1]
        assert second.returncode == 1
        assert f"another one is at work here (process {first.pid}, since " in told
    finally:
        os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 30
    while (third := start(0)).wait(30):  # the lock goes with the child, a moment after the signal
        assert time.monotonic() < until
    assert third.returncode == 0


def test_a_caller_that_comes_before_the_first_one_has_said_who_it_is(start, tmp_path):
    place = tmp_path / ".dvc" / "tmp" / "repro.lock"
    place.parent.mkdir(parents=True)
    with place.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = start(0)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.3)
        lock.write("process 7, since 12:00:00")
        lock.flush()
        assert "another one is at work here (process 7, since 12:00:00, or" in second.communicate(timeout=30)[1]
