"""One restoration at a time: who waits, how far it is, and how it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.page.answers import mime
from ipt.page.canary import Canary, send_through
from ipt.page.pictures import look, read_picture, refusing
from ipt.page.progress import Steps
from ipt.page.requests import NO_MEMORY, Order, RequestError
from ipt.photos.child import Call
from ipt.photos.file_processes import FileProcesses
from ipt.photos.images import MAX_PIXELS
from ipt.photos.look import Look
from ipt.photos.photo import Photo
from ipt.restoring.memory import out_of_memory
from ipt.restoring.restore import Plan, plan_restoration, restore_tasks

_CANARY_SECONDS = 60.0


@dataclass(eq=False)
class Job(Steps):
    """An order and how far it is."""

    order: Order
    with_preview: bool = False
    call: Call = field(default_factory=Call)  # to the process that reads and writes its file

    def cancel(self) -> None:
        """Give it up: at once while its file is read or written, else before the next tile."""
        self.cancelled.set()
        self.call.cancel()

    def check(self) -> None:
        """Raise a RequestError where nobody waits any more, or nobody may."""
        if self.cancelled.is_set():
            raise RequestError(503, "the picture was given up, because the service is stopping")


@dataclass(frozen=True)
class Outcome:
    """A restored file, its media type, why it was restored so, and what a browser is shown of it, if asked for."""

    content: bytes
    kind: str
    plan: Plan
    unchanged: bool
    preview: tuple[bytes, str] | None


class Workshop:
    """A model at work on one picture after the other, in the order they come, each in the worker's thread.

    Files are read and written by `files`: with two processes, looking at a picture does not wait for restoring one.
    """

    def __init__(
        self,
        model: InstructIPT,
        files: FileProcesses,
        max_pixels: int = MAX_PIXELS,
        precision: Precision = "auto",
        memory: int | None = None,
    ) -> None:
        self.model, self._files, self._memory = model, files, memory
        self.max_pixels, self._precision = max_pixels, precision
        self._restoring = ThreadPoolExecutor(1, "restoring")
        self._looking = ThreadPoolExecutor(1, "looking")
        self.canary = Canary(self._send_through, _CANARY_SECONDS)
        self._inside: list[Job] = []  # changed by the thread of the event loop alone

    @contextmanager
    def submit(self, job: Job) -> Iterator[asyncio.Future[Outcome]]:
        """Put a job at the end; in the block its outcome may be awaited, or a RequestError for what is wrong with it.

        After the block nobody waits for it any more: a job that is not done ends before its next tile.
        """
        self._inside.append(job)
        future = asyncio.wrap_future(self._restoring.submit(self._restore, job))
        try:
            yield future
        finally:
            job.cancel()
            future.cancel()
            self._inside.remove(job)

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        return self._inside.index(job)

    async def look(self, image: bytes) -> Look:
        """Read a picture, beside what is restored; RequestErrors as for a job."""
        call, loop = Call(), asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._looking, look, self._files, image, self.max_pixels, call)
        finally:
            call.cancel()

    def close(self) -> None:
        """Give up all that is inside."""
        for job in self._inside:
            job.cancel()
        for executor in (self._restoring, self._looking):
            executor.shutdown(wait=False, cancel_futures=True)
        self.canary.close()

    def _send_through(self, picture: bytes, call: Call) -> None:
        task = self.model.config.tasks[:1]
        send_through(self._files, lambda levels: restore_tasks(self.model, levels, task), picture, call)

    def _restore(self, job: Job) -> Outcome:
        job.check()
        photo = read_picture(self._files, job.order.image, self.max_pixels, job.call)
        try:
            return self._restore_photo(job, photo)
        except ValueError as error:  # what only reading the instruction shows
            raise RequestError(400, str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error):
                raise RequestError(507, NO_MEMORY) from error
            raise

    def _restore_photo(self, job: Job, photo: Photo) -> Outcome:
        order, model = job.order, self.model
        plan = plan_restoration(model, photo.levels, task=order.task, instruction=order.instruction)
        restored = job.restore(
            model, photo.levels, plan, strength=order.strength, precision=self._precision, memory=self._memory
        )
        job.check()
        unchanged = not plan.tasks or np.array_equal(restored, photo.levels)
        with refusing():
            shown = self._files.preview(photo, restored, job.call) if job.with_preview else None
            content = self._files.restored_file(photo, restored, order.image, unchanged, job.call)
        return Outcome(content, mime(photo), plan, unchanged, shown)
