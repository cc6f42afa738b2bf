"""A small picture that goes through a service now and then, so that one that cannot work says so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ipt.page.requests import RequestError
from ipt.photos.child import Call
from ipt.photos.file_processes import FileProcesses
from ipt.photos.photo import Photo, encode_photo
from ipt.restoring.canary import canary_picture

_EVERY = 30.0  # seconds between two pictures, as long as all is well
_AGAIN = 1.0  # seconds after which it is tried again where it was not
_PATIENCE = 5.0  # seconds that one who asks waits for a picture; then the one before counts


class Canary:
    """`restore` sends a picture's file through the service; what it raises, or that it takes `seconds`, is told.

    Where the seconds are over its call is cancelled. `report` is told of every change between well and not, with the
    reason or None.
    """

    def __init__(
        self,
        restore: Callable[[bytes, Call], None],
        seconds: float,
        report: Callable[[str | None], None] = lambda wrong: None,
    ) -> None:
        self._restore, self._seconds, self._report = restore, seconds, report
        levels = canary_picture()
        self._picture = encode_photo(Photo(levels, None, False, "JPEG"), levels)
        self._thread, self._lock = ThreadPoolExecutor(1, "canary"), threading.Lock()
        self._sent: Future[None] | None = None
        self._wrong: str | None = None
        self._call, self._until, self._next = Call(), 0.0, 0.0

    def send(self) -> Future[None]:
        """Send a picture, unless one is on its way or it is not yet time for another one."""
        now = time.monotonic()
        if self._sent is None or (self._sent.done() and now >= self._next):
            self._call, self._until = Call(), now + self._seconds
            self._sent = self._thread.submit(self._send, self._call)
        return self._sent

    async def check(self) -> None:
        """Raise a RequestError of 503, with the reason, where the last picture did not come through."""
        sent = self.send()
        await asyncio.wait({asyncio.wrap_future(sent)}, timeout=_PATIENCE)
        if not sent.done() and time.monotonic() > self._until:
            self._call.cancel()
            self._settle(f"not done after {self._seconds:g} seconds")
        if self._wrong:
            raise RequestError(503, f"a test picture did not come through: {self._wrong}")

    def close(self) -> None:
        """Send no more."""
        self._call.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, call: Call) -> None:
        try:
            self._restore(self._picture, call)
            self._settle(None)
        except Exception as error:  # whatever it is, it is why this service cannot work
            self._settle(" ".join(f"{type(error).__name__}: {error}".split()))

    def _settle(self, wrong: str | None) -> None:
        with self._lock:
            before, self._wrong = self._wrong, wrong
            self._next = time.monotonic() + (_AGAIN if wrong else _EVERY)
        if (before is None) != (wrong is None):
            self._report(wrong)


def send_through(files: FileProcesses, restore: Callable[[np.ndarray], np.ndarray], picture: bytes, call: Call) -> None:
    """Read a picture, restore it, encode it and read that; raises what goes wrong, RuntimeError for another size."""
    photo = files.read_photo(picture, call=call)
    restored = restore(photo.levels)
    shape = files.read_photo(files.encode_photo(photo, restored, call), call=call).levels.shape
    if shape != photo.levels.shape:
        raise RuntimeError(f"{photo.levels.shape} became {shape}")
