"""A double of the process that reads files, for tests: what is written in a file, it does."""

import functools
import os
import time
from pathlib import Path
from typing import Any

from ipt.photos import file_process
from ipt.photos.file_channel import Message


def _sleep() -> None:
    time.sleep(60)


def _compute() -> None:
    while True:
        pass


def _crash() -> None:
    os.abort()


def _allocate() -> None:
    kept = []
    while True:
        kept.append(bytearray(1 << 24))


def _leave_another_behind() -> None:
    """As a hostile file may: a process in a session of its own, which keeps the streams open."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(3)
        os._exit(0)
    os._exit(0)


def _say(data: bytes) -> None:
    os.write(_STREAM[0], data)
    time.sleep(60)


_STREAM: list[int] = []
_LEAKED: list[bytearray] = []
ACTIONS = {
    b"sleep": _sleep,
    b"compute": _compute,
    b"crash": _crash,
    b"allocate": _allocate,
    b"exit": lambda: os._exit(0),
    b"fork": _leave_another_behind,
    b"garbage": lambda: _say(b"\xff" * 1000),
    b"no JSON": lambda: _say(b"\0\0\0\5hello"),
    b"deep": lambda: _say((200_000).to_bytes(4) + b"[" * 200_000),
}
VALUES = {
    "format": "EXE", "gray": 1, "dpi": [1e400, 1], "kinds": ["zz"], "texts": ["icc", "icc"], "compression": -1,
}  # fmt: skip


def _act(job: file_process.Job, message: Message, empty: Any) -> Message:
    """Do what the file says, before what was asked."""
    path = message.values.get("path")
    data = Path(path).read_bytes() if path else b"".join(message.texts[:1])
    if data in ACTIONS:
        ACTIONS[data]()
    if data.startswith(b"leak "):
        _LEAKED.append(bytearray(200_000_000))
        message.texts = [data.removeprefix(b"leak ")]
    return _lie(data, job, message, empty) if data.startswith(b"lie ") else job(message, empty)


def _lie(data: bytes, job: file_process.Job, message: Message, empty: Any) -> Message:
    """Answer for the picture that follows with one thing changed."""
    told, _, picture = data.removeprefix(b"lie ").partition(b"|")
    what, message.texts = told.decode(), [picture]
    answer = job(message, empty)
    if what in VALUES:
        answer.values[what] = VALUES[what]
    elif what == "more texts":
        answer.texts = [*answer.texts, b"x"]
    elif what == "no pixels":
        answer.pixels = []
    elif what == "other alpha":
        answer.pixels = [*answer.pixels, answer.pixels[0][:-1, :, 0]]
    elif what == "missing":
        answer.values = {}
    return answer


def main(told: dict[str, Any]) -> None:
    """Run as `ipt.photos.file_process` does, but for what is written in the files."""
    _STREAM.append(os.dup(1))
    file_process.main(told, {name: functools.partial(_act, job) for name, job in file_process.JOBS.items()})
