"""A network on this machine: a switch, and hosts with an address and a link of their own, of a bandwidth that is set.

Linux, as root. Each host is a process in namespaces of its own (network, files, name), so what two hosts share is what
they send each other. The switch is a bridge in the namespace of a process that ends when this one does, however that
ends: bridge and links go with it, and nothing of them stays on the machine.

`tc` sets the bandwidth (tbf). Latency would need netem, which many kernels lack: `Delayed` gives it to one server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Coroutine
from pathlib import Path

TOOLS = ("ip", "nsenter", "tc", "unshare")
_SWITCH = "ip link set lo up && ip link add switch type bridge && ip link set switch up && echo up && exec cat"
# Waits for a line, which says that its link is there, then hides `$1`, works in `$2`, and is called `$3`.
_HOST = """
read -r _ && exec < /dev/null &&
mkdir -p /tmp/ray "$2/ray" && mount --bind "$2/ray" /tmp/ray && mount --bind "$2/hosts" /etc/hosts &&
mount -t tmpfs none /dev/shm && echo "$3" > /proc/sys/kernel/hostname &&
{ [ -z "$1" ] || { mount -t tmpfs none "$1" && mkdir -p "$2"; }; } && cd "$2" && shift 3 && exec "$@"
"""


class LocalNetwork:
    """The switch; a context manager. This process is at `address`, by its `device`; its hosts at others."""

    def __init__(self, megabits: float | None = None) -> None:
        """Each host's link carries `megabits` per second each way, None: what this machine can.

        Raises RuntimeError where this machine cannot have one: the message says why.
        """
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing or os.geteuid() != 0:
            why = f"{', '.join(missing)} not found" if missing else "only root may"
            raise RuntimeError(f"this machine cannot have a network of its own: {why}")
        self._megabits, self._links = megabits, 0
        self._switch = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", _SWITCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = self._switch.stdout.readline().strip()
        if told != "up":
            self.__exit__()
            raise RuntimeError(f"this machine cannot have a network of its own: {told}")
        self._net, self.device = _free_net(self._switch.pid), f"ipt{self._switch.pid}"
        try:
            self.address = self._connect(os.getpid(), self.device, None)
        except RuntimeError:
            self.__exit__()
            raise

    def __enter__(self) -> LocalNetwork:
        return self

    def __exit__(self, *error: object) -> None:
        if self._links:  # at once: the rest goes a moment after its namespace
            subprocess.run(["ip", "link", "delete", self.device], capture_output=True, check=False)
        self._switch.stdin.close()
        self._switch.wait()
        self._switch.stdout.close()

    def next_address(self) -> str:
        """The address of the host that is started next."""
        return f"{self._net}.{self._links + 1}"

    def start(self, command: list[str], folder: Path, hidden: Path | None, **options: object) -> subprocess.Popen:
        """A command on a host of its own, in `folder`; `hidden` is a folder that is empty there.

        Its files of Ray (/tmp/ray) lie in `folder`/ray.
        """
        address, name = self.next_address(), f"host{self._links}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        apart = ["unshare", "--mount", "--net", "--uts", "sh", "-c", _HOST, "sh"]
        host = subprocess.Popen(
            [*apart, str(hidden or ""), str(folder), name, *command], stdin=subprocess.PIPE, text=True, **options
        )
        try:
            _wait_until_apart(host)
            self._connect(host.pid, "eth0", self._megabits)
        except RuntimeError:
            host.kill()
            raise
        with host.stdin as told:
            told.write("go\n")
        host.stdin = None  # for `communicate`
        return host

    def _connect(self, process: int, device: str, megabits: float | None) -> str:
        """A link from the switch to the namespace of a process; returns the address that this has then."""
        address, port = self.next_address(), f"port{self._links}"
        self._links += 1
        _call(f"ip link add {port} netns {self._switch.pid} type veth peer name {device} netns {process}")
        _inside(self._switch.pid, f"ip link set {port} master switch up {_limit(port, megabits)}")
        # A way to everywhere, which ends here: it is by that that programs find out their own address.
        away = f"&& ip link set lo up && ip route add default via {self._net}.1" if process != os.getpid() else ""
        _inside(
            process,
            f"ip addr add {address}/24 dev {device} && ip link set {device} up {_limit(device, megabits)} {away}",
        )
        return address


def inside(host: subprocess.Popen, folder: Path, *command: str) -> list[str]:
    """The command that runs `command` on a host, in `folder`."""
    enter = ["nsenter", "--target", str(host.pid), "--mount", "--net", "--uts"]
    return [*enter, "sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(folder), *command]


def _free_net(number: int) -> str:
    """The first three numbers of a network that nothing here is in, out of those kept for measurements (RFC 2544)."""
    taken = _call("ip -4 -brief addr")
    nets = (f"198.{18 + each // 256 % 2}.{each % 256}" for each in range(number, number + 512))
    return next(net for net in nets if f" {net}." not in taken)


def _limit(device: str, megabits: float | None) -> str:
    if megabits is None:
        return ""
    return f"&& tc qdisc add dev {device} root tbf rate {megabits:g}mbit burst 256kb latency 100ms"


def _wait_until_apart(host: subprocess.Popen) -> None:
    """Wait until a process that has just been started is in a network namespace of its own."""
    here = os.readlink("/proc/self/ns/net")
    while host.poll() is None:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{host.pid}/ns/net") != here:
                return
        time.sleep(0.005)
    raise RuntimeError(f"this machine cannot have a host of its own: exit status {host.returncode}")


def _inside(process: int, script: str) -> str:
    return _call(f"nsenter --target {process} --net sh -c '{script}'")


def _call(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"this machine cannot have a network of its own: {command}: {done.stderr.strip()}")
    return done.stdout


class Delayed:
    """A server that passes on to another one, and back, what it is sent, `seconds` late each way; a context manager."""

    def __init__(self, address: tuple[str, int], other: tuple[str, int], seconds: float) -> None:
        self._socket, self._other, self._seconds = socket.create_server(address), other, seconds
        self._connections: set[asyncio.Task] = set()
        begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(begun)), name="delayed", daemon=True)
        self._thread.start()
        begun.wait()

    def __enter__(self) -> Delayed:
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._socket.close()

    async def _serve(self, begun: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        await asyncio.start_server(self._both_ways, sock=self._socket)
        begun.set()
        await self._ended.wait()

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)  # asyncio itself holds them weakly
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError), contextlib.closing(writer):
            there_reader, there_writer = await asyncio.open_connection(*self._other)
            with contextlib.closing(there_writer):
                await _first_error(self._pass_on(reader, there_writer), self._pass_on(there_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What comes, in its order, after the delay: more may come meanwhile."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            content = b"begin"
            while content:
                content = await reader.read(1 << 16)
                late.put_nowait((self._loop.time() + self._seconds, content))

        async def write() -> None:
            content = b"begin"
            while content:
                due, content = await late.get()
                await asyncio.sleep(due - self._loop.time())
                writer.write(content)
            writer.write_eof()

        await _first_error(read(), write())


async def _first_error(*coroutines: Coroutine[None, None, None]) -> None:
    """Wait for all; where one raises, the others end too."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
