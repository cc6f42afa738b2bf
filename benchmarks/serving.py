"""The service under load: 8 clients with mixed tasks beside one request at a time; seconds, errors and memory.

    python -m benchmarks.serving [--model models/compressed] [--requests 2000] [--clients 8] [--rounds 5]

The pictures are 256 x 256 pieces of the default photographs as PNG, with seeded noise on them; the tasks take turns.
Clients and service share the machine. After 800 requests to warm up, one client and all of them take turns, so that
what else the machine does falls on both. Memory is the resident one of the service's process and of Ray's process that
speaks HTTP.
"""

from __future__ import annotations

import argparse
import http.client
import io
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
from PIL import Image

from benchmarks.restoring import mosaic
from ipt.model import InstructIPT
from ipt.photos.photo import read_photo
from ipt.restoring.restore import restore_tasks

SIDE = 256  # pixels
WARM_UP = 800  # requests; by then memory has settled
PICTURES = 15
HEADERS = {"Content-Type": "multipart/form-data; boundary=picture"}


@dataclass(frozen=True)
class Load:
    """What a number of clients met: seconds of each answer, how many of each status, seconds in all."""

    seconds: list[float]
    statuses: Counter
    wall: float


def main() -> None:
    """Ask one service in turns with one client and with all, and print what each met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/compressed")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = InstructIPT.from_pretrained(arguments.model)
    tasks = [model.config.tasks[place % len(model.config.tasks)] for place in range(PICTURES)]
    pictures = encoded_pictures(PICTURES)
    bodies = [form(picture, task) for picture, task in zip(pictures, tasks, strict=True)]
    each = arguments.requests // arguments.rounds
    loads: dict[int, list[Load]] = {1: [], arguments.clients: []}
    with service(arguments.model) as (port, process):
        ask_many(port, bodies, arguments.clients, WARM_UP)
        before = memory(process)
        for _ in range(arguments.rounds):
            loads[1].append(ask_many(port, bodies, 1, each // 5))
            loads[arguments.clients].append(ask_many(port, bodies, arguments.clients, each))
        after = memory(process)
        answers = [ask(port, body)[1] for body in bodies]
    for clients, rounds in loads.items():
        print(f"{clients} at a time: {summary(rounds)}")
    apart = max(map(levels_apart, [model] * PICTURES, pictures, answers, tasks))
    print(f"RSS {before / 1e6:.0f} -> {after / 1e6:.0f} MB; at most {apart} grey levels from the library")


def summary(rounds: list[Load]) -> str:
    """Speed as median and range over the rounds, times of all requests, and errors."""
    speeds = sorted(len(load.seconds) / load.wall for load in rounds)
    seconds = [value for load in rounds for value in load.seconds]
    p50, p95, p99 = (np.percentile(seconds, share) * 1e3 for share in (50, 95, 99))
    errors = len(seconds) - sum(load.statuses[200] for load in rounds)
    return (
        f"{np.median(speeds):.1f} pictures/s ({speeds[0]:.1f} to {speeds[-1]:.1f}); "
        f"p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms; {errors} errors in {len(seconds)}"
    )


def encoded_pictures(count: int) -> list[bytes]:
    """Noisy pieces of photographs, SIDE x SIDE, as PNG."""
    rng = np.random.default_rng(0)
    picture = mosaic(4)
    encoded = []
    for _ in range(count):
        top, left = (int(rng.integers(0, length - SIDE)) for length in picture.shape[:2])
        clean = picture[top : top + SIDE, left : left + SIDE]
        noisy = (clean + rng.normal(0, 15, clean.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


def form(picture: bytes, task: str) -> bytes:
    """A multipart body."""
    return (
        b'--picture\r\nContent-Disposition: form-data; name="task"\r\n\r\n' + task.encode() + b"\r\n"
        b'--picture\r\nContent-Disposition: form-data; name="image"; filename="in.png"\r\n\r\n'
        + picture
        + b"\r\n--picture--\r\n"
    )


@contextmanager
def service(model: str) -> Iterator[tuple[int, psutil.Process]]:
    """A service of its own on a free port, and the process that started it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.serve", "--model", model, "--port", str(port)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(started, port)
        yield port, psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(60)


def wait_until_ready(process: subprocess.Popen, port: int) -> None:
    """Return when /readyz says so; RuntimeError where the service ends instead."""
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.3)
    raise RuntimeError(f"the service ended with status {process.returncode}")


def ask(port: int, body: bytes) -> tuple[int, bytes]:
    """One request; status and content."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/restore", body, HEADERS)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask_many(port: int, bodies: list[bytes], clients: int, count: int) -> Load:
    """`count` requests by clients that each wait for an answer before they ask again."""
    places, seconds, statuses = iter(range(count)), [], Counter()
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                place = next(places, None)
            if place is None:
                return
            started = time.perf_counter()
            try:
                status = ask(port, bodies[place % len(bodies)])[0]
            except OSError as error:
                status = type(error).__name__
            with taking:
                seconds.append(time.perf_counter() - started)
                statuses[status] += 1

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(seconds, statuses, time.perf_counter() - started)


def memory(process: psutil.Process) -> int:
    """Resident bytes of the service's process and of the one that speaks HTTP."""
    names = ("ServeReplica", "ProxyActor")
    children = process.children(recursive=True)
    return sum(child.memory_info().rss for child in children if any(name in child.name() for name in names))


def levels_apart(model, picture: bytes, answer: bytes, task: str) -> int:
    """The largest difference in grey levels between an answer and what the library makes of the picture."""
    expected = restore_tasks(model, read_photo(picture).levels, [task])
    return int(np.abs(read_photo(answer).levels.astype(int) - expected).max())


if __name__ == "__main__":
    main()
