"""What one input may cost: seconds of the processor and memory, held against what it took."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import cv2

SECONDS, MEMORY = 2.0, 1 << 30
_STUCK = 10  # times the seconds; then what still computes is ended
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


class CostlyError(BaseException):
    """An input took too much; no Exception, so that no reader takes it for damage."""


@contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Raise CostlyError where the block takes more `seconds` of the processor or bytes of `memory`.

    The seconds are those of all threads of this process, whatever else the machine does; memory is what comes beside
    what was there, on Linux alone. There the block is refused more than twice the limit, which is told as costly.
    """
    refusal: Exception | None = None
    with _ended_when_stuck(seconds * _STUCK), _refused(2 * memory):
        with suppress(OSError):
            _FORGET.write_text("5")
        resident, before = _status("VmRSS"), _status("VmHWM")
        started = time.process_time()
        try:
            yield
        except Exception as error:  # a refusal may cost no more than an answer
            refusal = error
        taken, peak = time.process_time() - started, _status("VmHWM")
    if _wants_memory(refusal):
        raise CostlyError(f"asked for more than {2 * memory >> 20} MB of memory") from refusal
    if taken > seconds:
        raise CostlyError(f"took {taken:.1f} s of the processor; the limit is {seconds:g}") from refusal
    if peak > before and peak - resident > memory:  # where the kernel does not forget, only a new peak is seen
        raise CostlyError(f"took {peak - resident >> 20} MB of memory; the limit is {memory >> 20}") from refusal
    if refusal is not None:
        raise refusal


@contextmanager
def _ended_when_stuck(seconds: float) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise CostlyError(f"still computing after {seconds:g} s of the processor")

    if not hasattr(signal, "SIGPROF"):  # Windows
        yield
        return
    former = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


@contextmanager
def _refused(memory: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    room = _status("VmSize") + memory
    resource.setrlimit(resource.RLIMIT_AS, (room if hard == resource.RLIM_INFINITY else min(room, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _status(name: str) -> int:
    """Bytes, by the kernel's name for them; 0 where there is no such kernel."""
    if sys.platform != "linux":
        return 0
    text = _STATUS.read_text()
    start = text.index(name + ":") + len(name) + 1
    return int(text[start : text.index("kB", start)]) * 1024


def _wants_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, cv2.error) and "Insufficient memory" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
