"""Fuzzing that is guided by what code an input reaches: one target under libFuzzer, in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

import atheris

if TYPE_CHECKING:
    from fuzz.targets import Target

MOST_BYTES = 40_000  # of an input
_STUCK = 120  # seconds by the clock, after which a library does not come back
_TOLD = 5000  # characters of what a process said at its end
_READERS = ("Avif", "Bmp", "Jpeg", "Mpo", "Png", "Tiff", "WebP")  # of Pillow
_CODE = ["ipt", "PIL", "pi_heif", "pipelines", "python_multipart", "ruamel", "starlette"]  # that guides


@dataclass(frozen=True)
class Outcome:
    """What a process did: inputs, edges of code that they reached, seconds of the processor, the input that ended it.

    known: that input does what nobody here can mend (`is_known`). stopped: a person interrupted it.
    """

    inputs: int
    edges: int
    seconds: float
    found: Path | None
    known: bool
    stopped: bool


def load_targets() -> dict[str, Target]:
    """The targets, with what they test made to tell where each input goes; nothing may have imported it before."""
    logging.disable()  # the reader of forms tells each mistake
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=_CODE):  # it tells each module
        for name in (*(f"PIL.{reader}ImagePlugin" for reader in _READERS), "starlette.formparsers", "pi_heif"):
            importlib.import_module(name)
        return importlib.import_module("fuzz.targets").TARGETS


def run_apart(name: str, target: Target, until: float, finds: Path, grown: Path) -> Outcome:
    """Fuzz a target until a time in seconds since 1970, or until something is found.

    It begins with what is in `grown` and what the repository has; inputs that reach what none reached before are put
    there. A finding becomes two files in `finds`: the input, and what it did.
    """
    log, seen = finds / f"{name}.log", Seen()
    child = os.fork()  # what is loaded takes seconds, and is there
    if not child:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        _fuzz(name, target, until, seen, grown)
    stopped = False
    try:
        status, seconds = _wait(child, until + _STUCK)
    except KeyboardInterrupt:  # which the child has too
        os.kill(child, signal.SIGKILL)
        (status, seconds), stopped = _wait(child, time.time()), True
    said = log.read_text(errors="replace")
    found = None
    if status and not stopped:
        found = finds / f"{name}-{hashlib.sha256(seen.data).hexdigest()[:12]}"
        found.write_bytes(seen.data)
        found.with_suffix(".txt").write_text(f"{said[-_TOLD:]}\nended with status {status}\n")
    edges = max(map(int, re.findall(r"cov: (\d+)", said)), default=0)
    return Outcome(seen.inputs, edges, seconds, found, found is not None and is_known(found), stopped)


def is_known(found: Path) -> bool:
    """Whether an input crashes pi-heif in its C code, as `tests/fixtures/crashes_pi_heif_1.4.0.heic` does."""
    command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.replay", found]
    told = subprocess.run(command, capture_output=True, text=True, errors="replace").stderr
    return bool(re.match(r'Fatal Python error: Segmentation fault\n\n.*\n  File "[^"\n]*pi_heif/heif\.py"', told))


class Seen:
    """What a process tells the one that waits for it, also when it dies: how many inputs it had, and the last."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16 + MOST_BYTES)

    def note(self, data: bytes) -> None:
        """Begin with another input."""
        struct.pack_into("<QQ", self._shared, 0, self.inputs + 1, len(data))
        self._shared[16 : 16 + len(data)] = data

    @property
    def inputs(self) -> int:
        """How many there were."""
        return struct.unpack_from("<Q", self._shared)[0]

    @property
    def data(self) -> bytes:
        """The last one."""
        (length,) = struct.unpack_from("<Q", self._shared, 8)
        return self._shared[16 : 16 + length]


def _wait(child: int, until: float) -> tuple[int, float]:
    """How a process ended, by itself or after that time, and seconds of the processor that it took."""
    while True:
        number, status, used = os.wait4(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.time() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.1)


def _fuzz(name: str, target: Target, until: float, seen: Seen, grown: Path) -> NoReturn:
    from fuzz.inputs import inputs

    errors = os.fdopen(os.dup(2), "w", errors="backslashreplace")  # libFuzzer closes 2, where libraries complain
    for begin, content in inputs(name).items():
        (grown / begin).write_bytes(content)

    def check(data: bytes) -> None:
        if time.time() > until:
            os._exit(0)
        seen.note(data)
        target.run(data)

    def plain(data: bytes, rng: random.Random) -> bytes:
        return atheris.Mutate(data, max(len(data) + 16, 64)) if data else rng.randbytes(8)

    def change(data: bytes, most: int, seed: int) -> bytes:
        return target.change(data, random.Random(seed), plain)[:most]

    def cross(data: bytes, other: bytes, most: int, seed: int) -> bytes:
        return target.cross(data, other, random.Random(seed))[:most]

    # Its limit of time is by the clock and far away: ours is by the processor, and atheris takes 0 for at once.
    options = [f"-max_len={MOST_BYTES}", "-len_control=0", "-timeout=86400", "-rss_limit_mb=0", "-close_fd_mask=3"]
    options.append("-exact_artifact_path=/dev/null")  # where it would write what `seen` has
    named = {"custom_mutator": _telling(change, errors)}
    if target.cross:
        named["custom_crossover"] = _telling(cross, errors)
    atheris.Setup(["fuzz", *options, str(grown)], _telling(check, errors), **named)
    atheris.Fuzz()
    os._exit(2)  # it does not come back


def _telling(function: Callable, errors: TextIO) -> Callable:
    """`function`, whose exceptions are told and end the process."""

    def call(*arguments: object) -> object:
        try:
            return function(*arguments)
        except BaseException:
            traceback.print_exc(file=errors)
            errors.flush()
            os._exit(1)

    return call
