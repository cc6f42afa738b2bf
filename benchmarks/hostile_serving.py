"""The service while hostile files arrive: good requests that fail, their seconds beside quiet ones, and memory.

    python -m benchmarks.hostile_serving [--model models/compressed] [--requests 2000] [--rate 4]

8 clients ask for small pictures (128 x 128, else as in benchmarks.serving): alone; then while another address sends
each body of benchmarks.hostile_bodies in turn, one at a time and at most `--rate` a second, and holds 8 connections on
which a byte comes a second; then alone again. Clients and service share the machine. Memory is that of
benchmarks.serving. Exits with 1 where a good request failed.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.hostile_bodies import hostile_bodies
from benchmarks.serving import HEADERS, WARM_UP, Load, ask_many, encoded_pictures, form, memory, service, tasks_in_turn
from ipt.model import InstructIPT

CLIENTS, SLOW = 8, 8
SIDE, PICTURES = 128, 15
ANOTHER = ("127.0.0.2", 0)  # where hostile requests come from
SECONDS = 120  # that an answer may take


class Hostility:
    """What became of hostile requests, by name: how many had which status, and the slowest answer in seconds."""

    def __init__(self) -> None:
        self.statuses: dict[str, Counter] = {}
        self.slowest: dict[str, float] = {}

    def add(self, name: str, status: int | str, seconds: float) -> None:
        """Count an answer, or what became of it."""
        self.statuses.setdefault(name, Counter())[status] += 1
        self.slowest[name] = max(self.slowest.get(name, 0), seconds)


def main() -> None:
    """Ask quietly, under fire and quietly again; print what the good and the hostile requests met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/compressed")
    parser.add_argument("--requests", type=int, default=2000, help="good ones under fire, and as many in all without")
    parser.add_argument("--rate", type=float, default=4.0, help="hostile requests a second, at most")
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    arguments = parser.parse_args()
    model = InstructIPT.from_pretrained(arguments.model)
    pictures, tasks = encoded_pictures(PICTURES, SIDE), tasks_in_turn(model, PICTURES)
    bodies = [form(picture, task) for picture, task in zip(pictures, tasks, strict=True)]
    hostile = hostile_bodies(HEADERS["Content-Type"].rpartition("=")[2])
    hostility, sizes, half = Hostility(), [], arguments.requests // 2
    with service(arguments.model) as (port, process):
        ask_many(port, bodies, CLIENTS, arguments.warm_up)
        sizes.append(memory(process))
        quiet = [ask_many(port, bodies, CLIENTS, half)]
        with (
            beside(lambda ended: send_slowly(port, hostility, ended)),
            beside(lambda ended: send_hostile(port, hostile, arguments.rate, hostility, ended)),
        ):
            under_fire = [ask_many(port, bodies, CLIENTS, half)]
            sizes.append(memory(process))
            under_fire.append(ask_many(port, bodies, CLIENTS, half))
        quiet.append(ask_many(port, bodies, CLIENTS, half))
        sizes.append(memory(process))
    print_table(hostility)
    (failed, p99), (failed_quiet, p99_quiet) = told("under fire", under_fire), told("quiet", quiet)
    print(f"p99 under fire is {p99 / p99_quiet:.2f} times the quiet one")
    print(f"RSS {', '.join(f'{size / 1e6:.0f}' for size in sizes)} MB at the start, half-way and at the end")
    sys.exit(int(failed + failed_quiet > 0))


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Work in a thread as long as the block lasts; the work is told by an event when that is over."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def send_hostile(
    port: int, bodies: dict[str, tuple[bytes, str]], rate: float, hostility: Hostility, ended: threading.Event
) -> None:
    """Send each of `bodies` in turn, again and again, until `ended`."""
    while True:
        for name, (body, kind) in bodies.items():
            began = time.perf_counter()
            status = _ask(port, body, kind)
            seconds = time.perf_counter() - began
            hostility.add(name, status, seconds)
            if ended.wait(max(0.0, 1 / rate - seconds)):
                return


def _ask(port: int, body: bytes, kind: str) -> int | str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS, source_address=ANOTHER)
    try:
        connection.request("POST", "/restore", body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError as error:  # a service may hang up on a body that it does not want
        return type(error).__name__
    finally:
        connection.close()


def send_slowly(port: int, hostility: Hostility, ended: threading.Event) -> None:
    """Hold SLOW connections on which a byte comes a second, new ones where they are ended, until `ended`."""
    lines = ("POST /restore HTTP/1.1", "Host: x", f"Content-Type: {HEADERS['Content-Type']}", "Content-Length: 100000")
    head = "\r\n".join((*lines, "", ""))
    held: dict[socket.socket, float] = {}
    while not ended.wait(1):
        for connection, since in list(held.items()):
            if (status := _trickled(connection)) is not None:
                hostility.add("bodies that trickle", status, time.perf_counter() - since)
                connection.close()
                del held[connection]
        while len(held) < SLOW:
            connection = socket.create_connection(("127.0.0.1", port), SECONDS, ANOTHER)
            connection.sendall(head.encode())
            connection.setblocking(False)
            held[connection] = time.perf_counter()
    for connection in held:
        connection.close()


def _trickled(connection: socket.socket) -> int | str | None:
    """Send one byte more; the status of an answer that has come already, None where none has."""
    try:
        connection.send(b"x")
        answer = connection.recv(1000)
    except BlockingIOError:
        return None
    except OSError as error:
        return type(error).__name__
    return int(answer.split()[1]) if answer else "closed"


def told(name: str, loads: list[Load]) -> tuple[int, float]:
    """Print a line of what good requests met; returns how many failed, and the 99th percentile of seconds."""
    seconds = [value for load in loads for value in load.seconds]
    statuses = sum((load.statuses for load in loads), Counter())
    failed = len(seconds) - statuses[200]
    p50, p99 = (float(np.percentile(seconds, share)) for share in (50, 99))
    others = {status: count for status, count in statuses.items() if status != 200}
    print(f"{name}: {failed} of {len(seconds)} failed {others or ''}; p50 {p50 * 1e3:.0f}, p99 {p99 * 1e3:.0f} ms")
    return failed, p99


def print_table(hostility: Hostility) -> None:
    """Print what each kind of hostile request met."""
    for name, statuses in hostility.statuses.items():
        counts = ", ".join(f"{count} x {status}" for status, count in statuses.items())
        print(f"{name:36} {counts:32} slowest {hostility.slowest[name]:.2f} s")


if __name__ == "__main__":
    main()
