"""The service under load: 8 clients with mixed tasks beside one request at a time; seconds, errors and memory.

    python -m benchmarks.serving [--model models/compressed] [--requests 2000] [--rounds 5] [--against COMMIT]

The pictures are 256 x 256 pieces of the default photographs as PNG, with seeded noise on them; the tasks take turns.
Clients and service share the machine. After 800 requests to warm up, one client and all of them take turns, so that
what else the machine does falls on both. Memory is the resident one of the service's process, of those it started, and
of Ray's process that speaks HTTP.

`--against` serves the same model with the code of another commit beside it, which gets the same requests in turns, and
prints how many times as many pictures a second this code restores (median and range of the rounds).
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.restoring import mosaic
from ipt.model import InstructIPT
from ipt.photos.photo import read_photo
from ipt.restoring.restore import restore_tasks
from pipelines.tracking.store import tracking_uri

ROOT = Path(__file__).parent.parent
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
    """Ask one service, or those of two commits, in turns with one client and with all, and print what each met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/compressed")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="COMMIT", help="whose code serves the same model, for a ratio")
    arguments = parser.parse_args()
    model = InstructIPT.from_pretrained(arguments.model)
    pictures, tasks = encoded_pictures(PICTURES), tasks_in_turn(model, PICTURES)
    bodies = [form(picture, task) for picture, task in zip(pictures, tasks, strict=True)]
    with ExitStack() as stack:
        codes = {"this code": ROOT}
        if arguments.against:
            codes[arguments.against] = stack.enter_context(checked_out(arguments.against))
        served = {name: stack.enter_context(service(arguments.model, code)) for name, code in codes.items()}
        loads = measured(served, bodies, arguments)
        answers = [ask(served["this code"][0], body)[1] for body in bodies]
    for (name, clients), rounds in loads.items():
        print(f"{name}, {clients} at a time: {summary(rounds)}")
    if arguments.against:
        for clients in (1, arguments.clients):
            print(f"{clients} at a time: {ratio(loads['this code', clients], loads[arguments.against, clients])}")
    apart = max(map(levels_apart, [model] * PICTURES, pictures, answers, tasks))
    print(f"at most {apart} grey levels from the library")


def measured(
    served: dict[str, tuple[int, psutil.Process]], bodies: list[bytes], arguments: argparse.Namespace
) -> dict[tuple[str, int], list[Load]]:
    """What one client and all of them met, by service, in turns; prints the services' memory before and after."""
    each = arguments.requests // arguments.rounds
    loads: dict[tuple[str, int], list[Load]] = {}
    for port, _ in served.values():
        ask_many(port, bodies, arguments.clients, WARM_UP)
    before = {name: memory(process) for name, (_, process) in served.items()}
    for _ in range(arguments.rounds):
        for clients, count in ((1, each // 5), (arguments.clients, each)):
            for name, (port, _) in served.items():
                loads.setdefault((name, clients), []).append(ask_many(port, bodies, clients, count))
    for name, (_, process) in served.items():
        print(f"{name}: RSS {before[name] / 1e6:.0f} -> {memory(process) / 1e6:.0f} MB")
    return loads


def ratio(here: list[Load], there: list[Load]) -> str:
    """How many times as many pictures a second one service restored as another, round by round."""
    speeds = [[len(load.seconds) / load.wall for load in rounds] for rounds in (here, there)]
    times = sorted(one / other for one, other in zip(*speeds, strict=True))
    return f"{np.median(times):.2f} times as many pictures/s ({times[0]:.2f} to {times[-1]:.2f})"


def tasks_in_turn(model: InstructIPT, count: int) -> list[str]:
    """Names of the model's tasks, one after the other, again and again."""
    return [model.config.tasks[place % len(model.config.tasks)] for place in range(count)]


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A worktree of another commit of this repository."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*git, "add", "--detach", f"{folder}/code", commit], check=True, capture_output=True)
        try:
            yield Path(folder, "code")
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/code"], check=True)


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


def encoded_pictures(count: int, side: int = SIDE) -> list[bytes]:
    """Noisy pieces of photographs, `side` x `side`, as PNG."""
    rng = np.random.default_rng(0)
    picture = mosaic(4)
    encoded = []
    for _ in range(count):
        top, left = (int(rng.integers(0, length - side)) for length in picture.shape[:2])
        clean = picture[top : top + side, left : left + side]
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
def service(model: str, code: Path = ROOT) -> Iterator[tuple[int, psutil.Process]]:
    """A service of its own on a free port, run by the code in a folder, and the process that started it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = str(Path(model).resolve()) if Path(model).is_dir() else model
    command = [sys.executable, "-m", "pipelines.serve", "--model", folder, "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(code), "MLFLOW_TRACKING_URI": tracking_uri()}
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=code, env=environment)
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
    """Resident bytes of the service's process, of those it started, and of the one that speaks HTTP."""
    names = ("ServeReplica", "ProxyActor")
    ours = [child for child in process.children(recursive=True) if any(name in child.name() for name in names)]
    every = {one.pid: one for child in ours for one in (child, *child.children(recursive=True))}
    return sum(_resident(one) for one in every.values())


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:  # it ended meanwhile
        return 0


def levels_apart(model, picture: bytes, answer: bytes, task: str) -> int:
    """The largest difference in grey levels between an answer and what the library makes of the picture."""
    expected = restore_tasks(model, read_photo(picture).levels, [task])
    return int(np.abs(read_photo(answer).levels.astype(int) - expected).max())


if __name__ == "__main__":
    main()
