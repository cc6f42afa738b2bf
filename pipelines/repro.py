"""`make repro`: `dvc repro` for one caller at a time, in this environment."""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

LOCK = Path(".dvc/tmp/repro.lock")


def main() -> int:
    """Run `dvc repro` with the arguments given; refuses while another call is at work in this checkout."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.repro",
        description="`dvc repro` for one caller at a time, in this environment, with one Ray for all stages.",
        epilog="All other arguments are those of `dvc repro`: the name of a stage, -f, --dry, ... (dvc repro --help).",
    )
    arguments = parser.parse_known_args()[1]
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"make repro: another one is at work here ({_holder(lock)}, or what it began); wait for it or stop it",
                file=sys.stderr,
            )
            return 1
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        lock.flush()
        status = _repro(arguments, lock.fileno())
        lock.truncate(0)  # the next one has this file before it has said who it is
        return status


def _holder(lock: TextIO) -> str:
    """Who holds the lock; waits at most a second for one that has just taken it to say so."""
    for _ in range(100):
        lock.seek(0)
        if holder := lock.read():
            return holder
        time.sleep(0.01)
    return "a process that has not said which"


def _repro(arguments: list[str], lock: int) -> int:
    """`dvc repro` with one Ray cluster for all its stages: starting one costs each of them seconds.

    DVC holds the open file `lock` too: where this process is killed, the lock is free once DVC has ended.
    """
    # `python` in dvc.yaml is the one that runs this, whether or not its environment was activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path}
    dvc = [sys.executable, "-m", "dvc"]
    status = [*dvc, "status", "--quiet", "dvc.yaml"]
    outdated = subprocess.call(status, env=environment, stdout=subprocess.DEVNULL, pass_fds=[lock])
    if not outdated or "RAY_ADDRESS" in environment:
        return subprocess.call([*dvc, "repro", *arguments], env=environment, pass_fds=[lock])
    from pipelines.cluster.connection import OWN_RAY, connected  # only now: it takes seconds to import
    from pipelines.common.params import load_params

    own = load_params().ray.address == "local"
    with connected() as address:  # which may have put the cluster's token into the environment
        environment = os.environ | {"PATH": path, "RAY_ADDRESS": address} | ({OWN_RAY: address} if own else {})
        return subprocess.call([*dvc, "repro", *arguments], env=environment, pass_fds=[lock])


if __name__ == "__main__":
    sys.exit(main())
