"""`make repro` for one caller at a time, with a DVC that only waits."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DVC = """
import os, sys, time
if os.environ["WORKS_AT"] in sys.argv:
    with open("begun.txt", "w") as file:
        file.write(str(os.getpid()))
    os.rename("begun.txt", "begun")
    time.sleep(float(os.environ["SECONDS"]))
sys.exit("status" in sys.argv)  # something is to be made
"""
REPRO = """
import contextlib, sys, types
from pipelines import repro
ray = types.ModuleType("pipelines.cluster.connection")  # that starts none
ray.OWN_RAY, ray.connected = "OWN", lambda: contextlib.nullcontext("the-own-one")
sys.modules[ray.__name__] = ray
sys.exit(repro.main())
"""


@pytest.fixture
def start(tmp_path):
    """Start `python -m pipelines.repro` in a folder of its own, with a DVC that works for some seconds."""
    (tmp_path / "dvc.py").write_text(DVC)
    shutil.copy(ROOT / "params.yaml", tmp_path)

    def caller(seconds: float, works_at: str = "repro", address: str | None = "nowhere") -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "WORKS_AT": works_at, "SECONDS": str(seconds)}
        environment.pop("RAY_ADDRESS", None)
        environment |= {} if address is None else {"RAY_ADDRESS": address}
        return subprocess.Popen(
            [sys.executable, "-c", REPRO], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    return caller


def child_of(folder: Path) -> int:
    """The process of the DVC that has begun."""
    until = time.monotonic() + 30
    while not (folder / "begun").exists():
        assert time.monotonic() < until, "DVC never began"
        time.sleep(0.02)
    return int((folder / "begun").read_text())


@pytest.mark.parametrize(
    "path",
    [{"works_at": "status"}, {"address": "nowhere"}, {"address": None}],
    ids=["it asks what is to be done", "it runs on another's Ray", "it runs on its own Ray"],
)
def test_the_second_caller_waits_for_what_a_killed_first_one_began(start, tmp_path, path):
    first = start(60, **path)
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
