"""Several Ray nodes on this machine, each a raylet that can be killed; for tests and for the table of faults."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.local_network import LocalNetwork, inside

START = 90  # seconds that a node may take to start
OBJECT_STORE = 300_000_000  # bytes; Ray takes a third of a machine's memory, which nodes of one machine would share


class LocalCluster:
    """A head and other nodes, as `ray start` makes them; a context manager that stops them all."""

    def __init__(
        self,
        folder: Path,
        head_cpus: int,
        hidden: Path | None = None,
        *,
        dashboard: bool = False,
        network: LocalNetwork | None = None,
        object_store: int = OBJECT_STORE,
    ) -> None:
        """`folder` is for the nodes' own working directories and logs; `hidden` is one that no node but the head sees.

        `dashboard` starts Ray's, whose address is then `self.dashboard`. With a `network` each node is a host there;
        what is to run where the head does is called by `on_head`. `object_store`: bytes, of each node.

        Raises RuntimeError where this machine cannot hide a folder (no `unshare`, or not allowed).
        """
        if hidden and not network and not _can_hide(hidden):
            raise RuntimeError("this machine cannot hide a folder from a process: `unshare -rm` and `mount` are needed")
        self.folder, self.hidden, self.network, self.object_store = folder, hidden, network, object_store
        port, dashboard_port = free_port(), free_port()
        address = network.next_address() if network else _own_address()
        self.address, self.dashboard = f"{address}:{port}", f"http://127.0.0.1:{dashboard_port}"
        self.token = secrets.token_hex(32)  # who has it may run what he likes on these nodes
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.nodes: list[subprocess.Popen] = []
        shown = (f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={dashboard_port}")
        self._start(None, "--head", f"--port={port}", f"--num-cpus={head_cpus}", *shown)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *error: object) -> None:
        for number in reversed(range(len(self.nodes))):
            self.kill(number)

    def add(self, cpus: int) -> int:
        """Start one more node; returns its number (the head is 0)."""
        return self._start(self.hidden, f"--address={self.address}", f"--num-cpus={cpus}")

    def on_head(self, folder: Path, *command: str) -> list[str]:
        """The command that runs `command` in `folder` where the head runs."""
        return inside(self.nodes[0], folder, *command) if self.network else list(command)

    def _start(self, hidden: Path | None, *options: str) -> int:
        number = len(self.nodes)
        own = self.folder / f"node{number}"
        own.mkdir(parents=True)
        command = [shutil.which("ray", path=self.environment["PATH"]), "start", "--block", *options]
        command += [f"--object-store-memory={self.object_store}", "--disable-usage-stats"]
        with (own / "log.txt").open("w") as log:
            running = {"env": self.environment, "stdout": log, "stderr": log, "start_new_session": True}
            if self.network:
                command.append(f"--node-ip-address={self.network.next_address()}")
                node = self.network.start(command, own, hidden, **running)
            else:
                node = subprocess.Popen(_hiding(hidden, *command) if hidden else command, cwd=own, **running)
            self.nodes.append(node)
        until = time.monotonic() + START
        while "Ray runtime started" not in (own / "log.txt").read_text():
            if time.monotonic() > until or self.nodes[number].poll() is not None:
                self.kill(number)
                raise RuntimeError(f"node {number} did not start:\n{(own / 'log.txt').read_text()}")
            time.sleep(0.2)
        return number

    def processes(self, number: int, name: str = "") -> list[psutil.Process]:
        """The living processes of a node whose title holds `name`, such as `raylet` or `ray::_RayTrainWorker`."""
        try:
            children = psutil.Process(self.nodes[number].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for child in children:
            try:
                if name in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def trainers(self) -> list[psutil.Process]:
        """The processes of Ray Train's workers, on all nodes."""
        return [each for number in range(len(self.nodes)) for each in self.processes(number, "RayTrainWorker")]

    def kill(self, number: int) -> None:
        """kill -9 of everything on a node, its raylet first."""
        every = self.processes(number)
        for process in sorted(every, key=lambda each: "raylet" not in each.name()):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.nodes[number].kill()
        self.nodes[number].wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _hiding(folder: Path, *command: str) -> list[str]:
    """A command in a mount namespace of its own, where `folder` is empty."""
    script = 'mount -t tmpfs none "$1" && shift && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder), *command]


def _can_hide(folder: Path) -> bool:
    return not subprocess.run(_hiding(folder, "true"), capture_output=True, check=False).returncode


def _own_address() -> str:
    import ray

    return ray.util.get_node_ip_address()
