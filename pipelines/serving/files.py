"""Picture files of strangers beside the event loop: read and written in processes, which end where nobody waits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ipt.page.pictures import look, read_picture, refusing
from ipt.photos.child import Call, Limits
from ipt.photos.file_processes import FileProcesses
from ipt.photos.look import Look
from ipt.photos.photo import Photo

Result = TypeVar("Result")


class Files:
    """`count` processes, and as many threads that wait for them, so that a process is all that a bad file holds.

    What is awaited here raises a RequestError for what is wrong with a picture; where it is cancelled, its process is
    ended at once and another one takes its place.
    """

    def __init__(self, count: int, limits: Limits) -> None:
        self._max_pixels = limits.pixels
        self.processes, self._threads = FileProcesses(count, limits), ThreadPoolExecutor(count, "files")

    async def read(self, image: bytes) -> Photo:
        """The photograph in a file's bytes."""
        return await self._run(read_picture, self.processes, image, self._max_pixels)

    async def look(self, image: bytes) -> Look:
        """What a browser can show of a picture."""
        return await self._run(look, self.processes, image, self._max_pixels)

    async def restored(self, photo: Photo, levels: np.ndarray, original: bytes, unchanged: bool) -> bytes:
        """The file to give back for `original` (`ipt.photos.photo.restored_file`)."""
        with refusing():
            return await self._run(self.processes.restored_file, photo, levels, original, unchanged)

    async def preview(self, photo: Photo, levels: np.ndarray) -> tuple[bytes, str]:
        """What a browser is shown of `levels`, and its media type (`ipt.photos.look.preview`)."""
        with refusing():
            return await self._run(self.processes.preview, photo, levels)

    async def _run(self, function: Callable[..., Result], *arguments: object) -> Result:
        call = Call()
        work = functools.partial(function, *arguments, call=call)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            call.cancel()  # nothing, where it is done

    def close(self) -> None:
        """End the processes."""
        self.processes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
