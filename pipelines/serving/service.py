"""The service itself, as Ray Serve runs it: HTTP in, batches of mixed tasks, HTTP out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from ipt.network.precision import Precision
from ipt.page.answers import mime, picture_answer, refused, tell
from ipt.page.canary import Canary, send_through
from ipt.page.progress import PROGRESS, last_pieces
from ipt.page.requests import NO_MEMORY, Order, RequestError, check_order, read_body, read_order
from ipt.page.routes import MISTAKE, about
from ipt.photos.child import Call
from ipt.photos.look import Look
from ipt.restoring.budget import MemoryBudget, file_limits
from ipt.restoring.memory import out_of_memory
from pipelines.serving.files import Files
from pipelines.serving.jobs import Job, Outcome, restore_alone, restore_jobs
from pipelines.serving.metrics import Log, Metrics
from pipelines.serving.model import Watcher
from pipelines.serving.progress import Pending, told
from pipelines.serving.senders import Senders

_FILE_PROCESSES = 2  # that decode and encode
_FAREWELL = 2.0  # seconds, for the last bytes to leave Ray's process that speaks HTTP and for others to be told 503


@dataclass(frozen=True)
class Settings:
    """All that a person may choose of a service."""

    model: str
    device: Literal["cpu", "cuda"]
    precision: Precision
    threads: int  # batches at once, each with one of the model's copies
    batch: int
    batch_wait: float  # seconds
    queue: int
    max_body: int  # bytes
    max_pixels: int
    body_timeout: float  # seconds
    timeout: float  # seconds
    watch: float  # seconds
    token: bytes | None  # SHA-256 of it
    prints: bool = False  # the log, where nobody fetches it


class Service:
    """What the routes of `pipelines.serving.routes` answer, in one process with one model."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(1 if settings.device == "cpu" else torch.get_num_threads())
        self._settings, self._log, self._metrics = settings, Log(prints=settings.prints), Metrics()
        budget = MemoryBudget.of_what_is_free()
        files, network = budget.files(_FILE_PROCESSES), budget.network(settings.threads + 1)
        self._files = Files(files.count, file_limits(files, settings.max_pixels, settings.timeout))
        self._threads, self._memory = max(network.count - 1, 1), network.each
        self._watcher = Watcher(
            settings.model, settings.device, self._threads, settings.watch, self._reloaded, settings.precision
        )
        self._metrics.model.labels(self._watcher.loaded.version).set(1)
        self._large = ThreadPoolExecutor(1)
        self._small = ThreadPoolExecutor(self._threads)
        self._batched = self._make_batched()
        self._senders = Senders(settings.queue)
        self._metrics.senders.set_function(self._senders.__len__)
        self._jobs: list[Job] = []  # that wait for the network or are at work, in the order they came
        self._waiting, self._stopping = 0, False
        self._canary = Canary(self._send_through, settings.timeout, self._canary_came)
        self._canary.send()

    def _make_batched(self):
        settings, workers = self._settings, self._small

        @serve.batch(
            max_batch_size=settings.batch,
            batch_wait_timeout_s=settings.batch_wait,
            max_concurrent_batches=self._threads,
        )
        async def restore_batch(jobs: list[Job]) -> list[Outcome | Exception]:
            return await asyncio.get_running_loop().run_in_executor(workers, restore_jobs, jobs)

        return restore_batch

    async def log_lines(self) -> AsyncIterator[str]:
        """The log as it is written, for the process that started the service."""
        while True:
            lines = self._log.take()
            if lines:
                yield "\n".join(lines)
            await asyncio.sleep(0.2)

    async def drain(self) -> str:
        """Take no more requests, wait until those inside are answered, and return the rest of the log."""
        self._stopping = True
        while self._waiting or self._senders:
            await asyncio.sleep(0.05)
        await asyncio.sleep(_FAREWELL)
        return "\n".join(self._log.take())

    def about(self) -> dict[str, Any]:
        """What the page has to know."""
        loaded, settings = self._watcher.loaded, self._settings
        asks = settings.token is not None
        return about(loaded.model, loaded.version, settings.max_body, settings.max_pixels, asks)

    async def ready(self) -> dict[str, str]:
        """The version served; a RequestError of 503 where no request is taken or a test picture failed."""
        if self._stopping or self._waiting >= self._settings.queue:
            raise RequestError(503, "stopping" if self._stopping else "the queue is full")
        await self._canary.check()
        return {"status": "ready", "model": self._watcher.loaded.version}

    def metrics(self, request: Request) -> bytes:
        """The metrics in Prometheus's text format."""
        self._check_token(request)
        return self._metrics.to_text()

    async def look(self, request: Request) -> Look:
        """What a browser can show of a picture."""
        async with self._admitted(request) as order:
            return await self._files.look(order.image)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Count a request as one of those that wait or are at work."""
        self._waiting += 1
        self._metrics.waiting.set(self._waiting)
        try:
            yield
        finally:
            self._waiting -= 1
            self._metrics.waiting.set(self._waiting)

    async def restore(self, request: Request) -> Response:
        """Answer POST /restore, where the request accepts PROGRESS as lines of how far it is."""
        if PROGRESS in request.headers.get("accept", ""):
            return await told(lambda pending: self._answer(request, pending), self._ahead)
        return await self._answer(request, Pending())

    def _ahead(self, job: Job) -> int:
        """How many came before a picture to where it is now, as long as it is not done."""
        here = [other for other in self._jobs if other.is_small() == job.is_small()]
        return here.index(job) if job in here else 0

    async def _answer(self, request: Request, pending: Pending) -> Response:
        """An answer to POST /restore; whatever happens inside becomes one, a number and a line of the log."""
        started = time.perf_counter()
        seen: dict[str, object] = {}
        try:
            async with self._admitted(request) as order:
                response = await self._restore(request, order, pending, started, seen)
        except RequestError as refusal:
            seen["error"] = str(refusal)
            response = refused(refusal)
        except Exception as error:  # a mistake of ours, or no memory: told to the log, not to the one who asks
            seen["error"] = f"{type(error).__name__}: {error}"
            response = refused(RequestError(507, NO_MEMORY) if out_of_memory(error) else RequestError(500, MISTAKE))
        seconds = time.perf_counter() - started
        self._metrics.requests.labels(str(response.status_code)).inc()
        self._log.write("restore", status=response.status_code, seconds=round(seconds, 3), **seen)
        return response

    async def _restore(self, request: Request, order: Order, pending: Pending, started: float, seen: dict) -> Response:
        settings = self._settings
        seen["bytes"] = len(order.image)
        try:
            async with asyncio.timeout(settings.timeout):
                photo, outcome, content, version = await self._work(order, pending, seen)
        except TimeoutError:
            raise RequestError(504, f"not done after {settings.timeout:g} seconds; send a smaller picture") from None
        finally:
            pending.cancel()  # where nobody waits any more
        self._metrics.count(time.perf_counter() - started, outcome.restored, outcome.plan.tasks, outcome.batch)
        done = tell(outcome.plan, version)
        seen |= {"tasks": done["tasks"], "by": done["by"], "batch": outcome.batch, "model": done["model"]}
        if PROGRESS not in request.headers.get("accept", ""):
            return picture_answer(request, content, mime(photo), done)
        shown = await self._files.preview(photo, outcome.restored)
        done["unchanged"] = content is order.image
        pieces = last_pieces(done, {"restored": (content, mime(photo)), "preview": shown})
        return Response(b"".join(pieces), media_type=PROGRESS)

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[Order]:
        """The order of one who may ask, within the limits; in the block it is inside.

        While its body comes it only has a place among the senders: those who send slowly keep nobody from the queue.
        """
        settings = self._settings
        self._check_token(request)
        if self._stopping:
            raise RequestError(503, "the service is stopping")
        self._check_queue()  # before a body is sent for nothing
        async with self._senders.place(request.client.host if request.client else "") as sender:
            body = await read_body(request, settings.max_body, settings.body_timeout, sender.came)
        self._check_queue()
        with self._inside():
            order = await read_order(request.headers, body)
            del body  # the picture is in the order
            yield order

    def _check_queue(self) -> None:
        if self._waiting >= self._settings.queue:
            raise RequestError(429, f"{self._settings.queue} requests are waiting already; try again later")

    async def _work(self, order: Order, pending: Pending, seen: dict) -> tuple:
        """Decode, restore and encode; returns the photo, the outcome, the file's bytes and the model's version."""
        loop, loaded = asyncio.get_running_loop(), self._watcher.loaded
        check_order(loaded.model, order)
        pending.accepted.set()
        photo = await self._files.read(order.image)
        height, width = photo.levels.shape[:2]
        seen |= {"format": photo.format, "width": width, "height": height}
        job = pending.job = Job(
            loaded, photo.levels, order.task, order.instruction, order.strength, self._settings.precision, self._memory
        )
        self._jobs.append(job)
        try:
            if job.is_small():
                outcome = await self._batched(job)
                if isinstance(outcome, Exception):
                    raise outcome
            else:
                outcome = await loop.run_in_executor(self._large, restore_alone, loaded.model, job)
        except ValueError as error:  # what only reading the instruction shows
            raise RequestError(400, str(error)) from error
        finally:
            self._jobs.remove(job)
        unchanged = not outcome.plan.tasks or np.array_equal(outcome.restored, photo.levels)
        content = await self._files.restored(photo, outcome.restored, order.image, unchanged)
        return photo, outcome, content, loaded.version

    def _check_token(self, request: Request) -> None:
        if self._settings.token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        if not hmac.compare_digest(digest, self._settings.token) or kind.lower() != "bearer":
            raise RequestError(401, "Authorization: expected Bearer and the service's token")

    def _send_through(self, picture: bytes, call: Call) -> None:
        loaded = self._watcher.loaded

        def restore(levels: np.ndarray) -> np.ndarray:
            task, precision = loaded.model.config.tasks[0], self._settings.precision
            (outcome,) = restore_jobs([Job(loaded, levels, task, precision=precision, memory=self._memory)])
            if isinstance(outcome, Exception):
                raise outcome
            return outcome.restored

        send_through(self._files.processes, restore, picture, call)

    def _canary_came(self, wrong: str | None) -> None:
        self._log.write("canary_failed" if wrong else "canary", error=wrong)

    def _reloaded(self, event: str, **values: str) -> None:
        if event == "model":
            self._metrics.model.clear()
            self._metrics.model.labels(values["version"]).set(1)
        if event != "model_unchecked":
            self._metrics.reloads.labels("done" if event == "model" else "failed").inc()
        self._log.write(event, **values)
