"""The service under load: 8 clients with mixed tasks beside one request at a time; seconds, errors and memory.

    python -m benchmarks.serving [--model models/compressed] [--requests 2000] [--clients 8]

The pictures are 256 x 256 pieces of the default photographs as PNG, with seeded noise on them; the tasks take turns.
Clients and service share the machine. Each kind of load has a service of its own, warmed up with 400 requests. Memory
is the resident one of the service's process and of Ray's process that speaks HTTP.
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
from ipt.checkpoint import load_model
from ipt.photos import read_photo
from ipt.restore import restore_tasks

SIDE = 256  # pixels
WARM_UP = 400  # requests
HEADERS = {"Content-Type": "multipart/form-data; boundary=picture"}


@dataclass(frozen=True)
class Load:
    """What a number of clients met: seconds of each answer, how many of each status, seconds in all."""

    seconds: list[float]
    statuses: Counter
    wall: float


def main() -> None:
    """Measure one client, all clients without batches, and all clients with them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/compressed")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    tasks = model.config.tasks
    pictures = encoded_pictures(16)
    bodies = [form(picture, tasks[place % len(tasks)]) for place, picture in enumerate(pictures)]
    fewer = max(arguments.requests // 5, 1)
    for name, clients, count, options in (
        ("one request at a time", 1, fewer, []),
        (f"{arguments.clients} clients, no batches", arguments.clients, fewer, ["--batch", "1"]),
        (f"{arguments.clients} clients, mixed batches", arguments.clients, arguments.requests, []),
    ):
        with service(arguments.model, options) as (port, process):
            ask_many(port, bodies, clients, WARM_UP)
            before = memory(process)
            load = ask_many(port, bodies, clients, count)
            after = memory(process)
            differences = [levels_apart(model, picture, ask(port, body)[1], tasks[place % len(tasks)])
                           for place, (picture, body) in enumerate(zip(pictures, bodies, strict=True))]  # fmt: skip
        p50, p95, p99 = (np.percentile(load.seconds, share) * 1e3 for share in (50, 95, 99))
        errors = count - load.statuses[200]
        print(
            f"{name}: {count / load.wall:.1f} pictures/s; p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms; "
            f"{errors} errors in {count}; RSS {before / 1e6:.0f} -> {after / 1e6:.0f} MB; "
            f"at most {max(differences)} grey levels from the library",
            flush=True,
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
def service(model: str, options: list[str]) -> Iterator[tuple[int, psutil.Process]]:
    """A service of its own on a free port, and the process that started it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.serve", "--model", model, "--port", str(port), *options]
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
    parts = [child for child in process.children(recursive=True) if any(name in child.name() for name in names)]
    if not parts:
        parts = [c for c in process.children(recursive=True) if any(name in " ".join(c.cmdline()) for name in names)]
    return sum(part.memory_info().rss for part in parts)


def levels_apart(model, picture: bytes, answer: bytes, task: str) -> int:
    """The largest difference in grey levels between an answer and what the library makes of the picture."""
    expected = restore_tasks(model, read_photo(picture).levels, [task])
    return int(np.abs(read_photo(answer).levels.astype(int) - expected).max())


if __name__ == "__main__":
    main()
