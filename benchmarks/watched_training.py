"""A training in a process of its own, watched by what it prints; for what kills it, in tests too."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.local_cluster import LocalCluster

TIMEOUT = 900  # seconds for a training


class Training:
    """`python -m pipelines.train` in a checkout, with what it prints."""

    def __init__(self, checkout: Path, cluster: LocalCluster, **environment: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            cluster.on_head(checkout, sys.executable, "-m", "pipelines.train"),
            cwd=checkout,
            env=cluster.environment | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(checkout)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def step(self) -> int:
        """The last step that it told."""
        return max([int(number) for number in re.findall(r"step (\d+)/", "\n".join(self.lines))], default=0)

    def wait_for(self, happened: Callable[[], bool], every: float = 0.002) -> None:
        """Wait until `happened`, asked every so many seconds; RuntimeError where the training ends before."""
        until = time.monotonic() + TIMEOUT
        while not happened():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"training ended or hangs, exit code {self.process.poll()}:\n" + self.output)
            time.sleep(every)

    def kill(self) -> None:
        """kill -9 of the driver and all that it started."""
        for child in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            child.kill()
        self.process.wait()
        self._reader.join()

    def end(self) -> str:
        """Wait for its end; RuntimeError with its output where that is not a good one."""
        code = self.process.wait(TIMEOUT)
        self._reader.join()
        if code:
            raise RuntimeError(f"training failed, exit code {code}:\n{self.output}")
        return self.output

    @property
    def output(self) -> str:
        return "\n".join(self.lines)
