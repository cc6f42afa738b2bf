"""A double of the process that reads files, for tests: what is written in a file, it does."""

import os
import time
from collections.abc import Mapping
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


def _read(message: Message, empty: Any) -> Message:
    """Do what the file says, or answer for it with one thing changed."""
    data = bytes(message.texts[0]) if message.texts else b""
    if data in ACTIONS:
        ACTIONS[data]()
    if not data.startswith(b"lie "):
        return file_process.JOBS["read_photo"](message, empty)
    told, _, picture = data.removeprefix(b"lie ").partition(b"|")
    what, message.texts = told.decode(), [picture]
    answer = file_process.JOBS["read_photo"](message, empty)
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
    """Run as `ipt.photos.file_process` does, with another job; remember the stream that answers go to."""
    _STREAM.append(os.dup(1))
    jobs: Mapping[str, Any] = {**file_process.JOBS, "read_photo": _read}
    file_process.main(told, jobs)
