"""One process that reads and writes picture files, as the one sees it who starts it, asks it and ends it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from ipt.photos.file_channel import Channel, FileArea, Message
from ipt.photos.images import MAX_PIXELS

PROGRAM = "ipt.photos.file_process"  # the module whose `main` the process runs
_RUN = "import importlib, json, sys; told = json.loads(sys.argv[1]); sys.path[:] = told.pop('path')\n"
_RUN += "importlib.import_module(told.pop('program')).main(told)"
_START_SECONDS = 60  # more than a start takes on the busiest machine
_LAST_SECONDS = 5  # that a process has between its last byte and its end
_KEPT = 1 << 26  # bytes of an area: more of it goes back after the work
_REMEDY = "save it anew with another program, or smaller"
# One thread; glibc keeps what is freed for the next file: to fetch it anew from the system takes a tenth of the time.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
}
_PIXEL_BYTES = 8  # of the largest: four channels of 16 bits

# What there is instead of an answer: an end of the stream, or nonsense.
_NO_ANSWER = (OSError, EOFError, ValueError, TypeError, LookupError, RecursionError, OverflowError)

Result = TypeVar("Result")


class EndedError(Exception):
    """The process was ended, or ended, over what it was asked; the message is the reason in words."""


class NoProcessError(RuntimeError):
    """There is no process to ask, which is nobody's fault who asks."""


@dataclass(frozen=True)
class Limits:
    """What one picture may take: pixels, bytes of memory, seconds on the clock and of the CPU."""

    pixels: int
    memory: int
    seconds: float
    cpu_seconds: float

    @classmethod
    def of(cls, pixels: int = MAX_PIXELS, memory: int | None = None, seconds: float | None = None) -> Limits:
        """Those within which harmless pictures of so many pixels stay, or less where `memory` or `seconds` say so."""
        needed = 256_000_000 + 64 * pixels  # measured: docs/restore.md
        seconds = 30 + pixels / 200_000 if seconds is None else seconds
        return cls(pixels, needed if memory is None else min(memory, needed), seconds, seconds)


class Call:
    """A picture's way through a process, which another thread may give up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[str], None] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Give up: what is at work on it is ended, what has not begun will not."""
        with self._lock:
            self._cancelled = True
            if self._end:
                self._end("given up, because nobody waits for it")

    @contextlib.contextmanager
    def at_work(self, end: Callable[[str], None]) -> Iterator[None]:
        """In the block `end` is what ends the work; an EndedError where it was given up already."""
        with self._lock:
            if self._cancelled:
                raise EndedError("given up, because nobody waits for it")
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


class Child:
    """A process that is started anew whenever it has ended; one thread at a time may ask it."""

    def __init__(self, limits: Limits, program: str = PROGRAM) -> None:
        self._limits, self._program = limits, program
        self._lock = threading.Lock()
        self._asked = 0  # odd while a thread asks, and alone has to do with the process
        self._why: str | None = None  # it was ended by us
        self._closed, self._ready, self._owner = False, False, os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start a process where none lives; it gets ready by itself. Raises OSError where the system has none left."""
        if self._owner != os.getpid():  # we were forked: the process is another's
            self._process, self._owner = None, os.getpid()
        if self._process and self._process.poll() is None:
            return
        self._end_process()
        self._ready, size = False, self._limits.pixels * _PIXEL_BYTES
        file = _new_file()
        settings = {name: value for name, value in asdict(self._limits).items() if name != "pixels"}
        settings |= {"area": file and (file.fileno(), size), "path": _import_path(), "program": self._program}
        command = [sys.executable, "-P", "-c", _RUN, json.dumps(settings)]
        self._area = FileArea(file, size) if file else None
        self._process, reader, writer, self._socket = _popen(command, [file.fileno()] if file else [])
        self._channel = Channel(reader, writer, self._area)

    def ask(self, message: Message, call: Call, take: Callable[[Message], Result]) -> Result:
        """What `take` makes of the process's answer; whatever it does instead of answering becomes an EndedError.

        `take` raises ValueError for an answer that is none. Raises NoProcessError where none can be started.
        """
        with self._lock:
            if self._closed:
                raise NoProcessError("the processes that read files were closed")
            self._asked, self._why = self._asked + 1, None
        try:
            return self._ask(message, call, take)
        finally:
            with self._lock:
                self._asked += 1
                if self._closed or self._why:  # ended just when it had answered
                    self._end_process()

    def _ask(self, message: Message, call: Call, take: Callable[[Message], Result]) -> Result:
        try:
            self.start()
        except OSError as error:
            raise NoProcessError(f"no process to read files can be started: {error}") from error
        end = functools.partial(self._end, self._asked)
        why = f"gave up after {self._limits.seconds:g} seconds; {_REMEDY}"
        timer = threading.Timer(self._limits.seconds + (0 if self._ready else _START_SECONDS), end, (why,))
        timer.daemon = True
        with call.at_work(end):
            timer.start()
            try:
                return self._exchange(message, take)
            except _NO_ANSWER as error:
                raise self._ended(error) from error
            finally:
                timer.cancel()

    def _exchange(self, message: Message, take: Callable[[Message], Result]) -> Result:
        if not self._ready:
            self._ready = bool(self._channel.receive(0).values["ready"])
        used = self._channel.send(message)
        answer = self._channel.receive(self._limits.pixels * _PIXEL_BYTES + self._limits.memory)
        result = take(answer)
        if answer.values.get("last"):
            self._end_process()
        elif self._area and max(used, sum(array.nbytes for array in answer.pixels)) > _KEPT:
            self._area.free()
        return result

    def _end(self, asked: int, why: str) -> None:
        """End the process if it is still asked the same."""
        with self._lock:
            if asked == self._asked and self._process:
                self._why = self._why or why
                _kill(self._process, self._socket)

    def _ended(self, error: Exception) -> Exception:
        """The error for there being no answer; the process is gone after that, and another one starts."""
        code = self._process.poll() if self._process else None
        if self._process and isinstance(error, (OSError, EOFError)):  # it ends, or is ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_LAST_SECONDS)
        self._end_process()
        with self._lock:  # what still ends the old one is not meant for the new one
            self._asked, why, self._why = self._asked + 2, self._why, None
        if not self._ready and not why:
            return NoProcessError(f"no process to read files could be started; it ended with {code} ({error!r})")
        with contextlib.suppress(OSError):  # it is tried again when it is needed
            self.start()
        return EndedError(why or _words(code, error, self._limits))

    def close(self) -> None:
        """End the process for good; a thread that asks it gets an EndedError."""
        with self._lock:
            self._closed = True
            if self._asked % 2 == 0:
                self._end_process()
            elif self._process:
                self._why = self._why or "given up, because the program ends"
                _kill(self._process, self._socket)

    def _end_process(self) -> None:
        """End the process, if it is ours, and wait until it is gone."""
        if self._process and self._owner == os.getpid():
            _kill(self._process, self._socket)
            with contextlib.suppress(subprocess.TimeoutExpired):  # in a call of the system that cannot be broken off
                self._process.wait(_LAST_SECONDS)
            self._channel.close()
            if self._socket:
                self._socket.close()
            if self._area:
                self._area.close()
        self._process = None


def _words(code: int | None, error: Exception, limits: Limits) -> str:
    """Why a process that ended with this status, or had to be ended, did not answer."""
    if code is None:
        return f"its decoder answered nonsense ({error or type(error).__name__}); save it anew with another program"
    name = signal.Signals(-code).name if code < 0 and -code in list(signal.Signals) else f"status {code}"
    if name == "SIGXCPU":
        return f"gave up after {limits.cpu_seconds:g} seconds of computing; {_REMEDY}"
    if name == "SIGKILL":
        return "the system ended its decoder, perhaps for want of memory; save it smaller, or close other programs"
    return f"its decoder crashed ({name}); save it anew with another program"


def _kill(process: subprocess.Popen[bytes], stream: socket.socket | None) -> None:
    """End a process, and what it may have started, and whoever waits for it."""
    if stream:  # a process of its own making may hold the other end
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        if sys.platform != "win32" and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def _popen(
    command: list[str], kept: list[int]
) -> tuple[subprocess.Popen[bytes], BinaryIO, BinaryIO, socket.socket | None]:
    """Start a process; returns it, the streams from and to it, and the socket that these are, where they are one.

    A socket can be shut from another thread, whoever holds its other end; on Windows it is two pipes.
    """
    environment = os.environ | _ENVIRONMENT
    if sys.platform == "win32":
        own_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Ctrl+C is for us
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, creationflags=own_group)
        return process, cast(BinaryIO, process.stdout), cast(BinaryIO, process.stdin), None
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env=environment,
            pass_fds=kept,
            start_new_session=True,
        )
    return process, ours.makefile("rb"), ours.makefile("wb"), ours


def _new_file() -> io.FileIO | None:
    """A file without a name that both processes reach, in memory where the system has such; None on Windows."""
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("ipt"), "r+")
    if sys.platform == "win32":
        return None
    with tempfile.TemporaryFile(buffering=0) as file:
        return io.FileIO(os.dup(file.fileno()), "r+")


def _import_path() -> list[str]:
    """Where this process imports from, `ipt` first of all as this one is, and nothing from the folder it stands in."""
    home = str(Path(__file__).parents[2])
    path = [str(Path(entry).absolute()) for entry in sys.path if entry]
    return path if home in path else [home, *path]
