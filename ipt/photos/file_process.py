"""The process that reads and writes picture files for `ipt.photos.file_processes`, which starts it.

It imports no torch, takes its files from its first stream and from memory that it shares with its parent, and sets
limits on itself before the first of them: what a file made to do harm can take is this process.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from ipt.photos.file_channel import Channel, MappedArea, Message
from ipt.photos.images import Empty, read_levels, read_small_levels
from ipt.photos.look import look, preview
from ipt.photos.photo import encode_photo, read_photo
from ipt.photos.photo_message import pack_photo, unpack_photo

with suppress(ImportError):  # of Windows
    import fcntl
    import resource

_ANY = 1 << 62  # bytes: the parent may send what it likes
_GRACE = 5  # seconds that the parent has to end us, before we do
_LEAK = 1 << 28  # bytes that a process may have lost after its work; more would be missing to the next file
_REST = 1.0  # seconds without work after which memory that was kept for it goes back


@dataclass(frozen=True)
class Settings:
    """What the parent tells this process at its start."""

    area: tuple[int, int] | None  # the number of an open file and its size in bytes
    memory: int  # bytes beside what this process has at its start
    seconds: float  # for one message
    cpu_seconds: float


Job = Callable[[Message, Empty], Message]


def _read_photo(message: Message, empty: Empty) -> Message:
    photo = read_photo(_source(message), message.values["max_pixels"], empty)
    return pack_photo(photo, photo.levels)


def _read_levels(message: Message, empty: Empty) -> Message:
    return Message({}, [read_levels(_source(message), empty)])


def _read_thumbnail(message: Message, empty: Empty) -> Message:
    levels, size = read_small_levels(_source(message), message.values["side"], empty)
    return Message({"size": size}, [levels])


def _encode(message: Message, empty: Empty) -> Message:
    photo = unpack_photo(message, _ANY)
    return Message({}, texts=[encode_photo(photo, photo.levels)])


def _look(message: Message, empty: Empty) -> Message:
    told = asdict(look(read_photo(_source(message), message.values["max_pixels"], empty)))
    content, told["kind"] = told.pop("preview")
    return Message(told, texts=[content])


def _preview(message: Message, empty: Empty) -> Message:
    photo = unpack_photo(message, _ANY)
    content, kind = preview(photo, photo.levels)
    return Message({"kind": kind}, texts=[content])


def _source(message: Message) -> Path | bytes:
    path = message.values["path"]
    return message.texts[0] if path is None else Path(path)


JOBS: Mapping[str, Job] = {
    "read_photo": _read_photo,
    "read_levels": _read_levels,
    "read_thumbnail": _read_thumbnail,
    "encode": _encode,
    "look": _look,
    "preview": _preview,
}


def main(told: dict[str, Any], jobs: Mapping[str, Job] = JOBS) -> None:
    """Answer messages until the parent ends."""
    settings = Settings(**told)
    reader, writer = _own_streams()
    area = MappedArea(*settings.area) if settings.area else None
    channel, empty = Channel(reader, writer, area), area.empty if area else np.empty
    cv2.setNumThreads(1)
    limit_process(settings)
    before = _held()
    channel.send(Message({"ready": True}))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _rest(reader)
            message = channel.receive(_ANY)
            with limited_time(settings, reader.fileno()):
                answer = _answer(jobs, message, empty)
            del message
            sent = sum(map(len, answer.texts)) + sum(array.nbytes for array in answer.pixels)
            if _held() - before - sent > min(_LEAK, settings.memory // 2):
                _trim()
                answer.values["last"] = _held() - before - sent > min(_LEAK, settings.memory // 2)
            channel.send(answer)
            del answer


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The streams that the parent holds the other ends of; what a library prints goes nowhere instead."""
    streams = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    return streams


def _rest(stream: BinaryIO) -> None:
    """Wait for work; where there is none for a while, give back what the C library keeps, if that is glibc."""
    if sys.platform != "win32" and not select.select([stream], [], [], _REST)[0]:
        _trim()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform != "win32" else None
    if trim:
        trim(0)


def _answer(jobs: Mapping[str, Job], message: Message, empty: Empty) -> Message:
    try:
        return jobs[message.values["job"]](message, empty)
    except Exception as error:  # which one, its parent has to know
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return Message({"error": kinds, "reason": str(error)})


def limit_process(settings: Settings) -> None:
    """Limits for as long as this process lives: memory, no files, no core dump; and the first to go without memory."""
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the parent
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "win32":
        return
    held = _held()
    for name, most in (("CORE", 0), ("FSIZE", 0), ("DATA", held + settings.memory if held else resource.RLIM_INFINITY)):
        _, hard = resource.getrlimit(number := getattr(resource, f"RLIMIT_{name}"))
        most = min((limit for limit in (most, hard) if limit != resource.RLIM_INFINITY), default=most)
        with suppress(OSError, ValueError):  # macOS has the name and not the limit
            resource.setrlimit(number, (most, most))


@contextmanager
def limited_time(settings: Settings, stream: int) -> Iterator[None]:
    """In the block the system ends this process after its seconds, on the clock and of the CPU, or with its parent."""
    if sys.platform == "win32":
        yield
        return
    used, (_, hard) = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime + settings.cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    signal.alarm(int(settings.seconds) + _GRACE)
    _signal_at_end(stream, True)
    try:
        yield
    finally:
        _signal_at_end(stream, False)
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


def _signal_at_end(stream: int, on: bool) -> None:
    """Have Linux send SIGIO, which ends a process, when the parent closes the stream; it has nothing to say by now."""
    if sys.platform == "win32":
        return
    flag = getattr(os, "O_ASYNC", 0o20000) if sys.platform == "linux" else 0
    fcntl.fcntl(stream, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(stream, fcntl.F_GETFL)
    fcntl.fcntl(stream, fcntl.F_SETFL, flags | flag if on else flags & ~flag)


def _held() -> int:
    """Bytes of memory that are this process's own, written to or not; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    with suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    return 0
