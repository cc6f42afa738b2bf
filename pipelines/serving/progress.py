"""An answer that is told while it is worked on: the work goes on beside it, and ends where nobody reads it any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from starlette.responses import Response

from ipt.page.progress import how_far, line, lines_until, progress_answer
from pipelines.serving.jobs import Job


class Pending:
    """A request's job, once it is there; `accepted` is set when its order is inside and can be met."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.accepted = asyncio.Event()

    def cancel(self) -> None:
        """Give the job up before its next tile."""
        if self.job:
            self.job.cancelled.set()


async def told(work: Callable[[Pending], Coroutine[Any, Any, Response]], ahead: Callable[[Job], int]) -> Response:
    """What `work` answers; from when its order is accepted on as lines of how far it is, and the answer's body last.

    What goes wrong before that is an answer with its status, after that a line. Whoever goes away ends the work.
    """
    pending = Pending()
    task = asyncio.create_task(work(pending))
    accepted = asyncio.create_task(pending.accepted.wait())
    try:
        await asyncio.wait({task, accepted}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        accepted.cancel()
    if task.done() and not pending.accepted.is_set():
        return task.result()
    return progress_answer(_pieces(task, pending, ahead), task.cancel)


async def _pieces(task: asyncio.Task[Response], pending: Pending, ahead: Callable[[Job], int]) -> AsyncGenerator[bytes]:
    async for piece in lines_until(task, lambda: how_far(pending.job, ahead(pending.job) if pending.job else 0)):
        yield piece
    answer = task.result()
    body = bytes(answer.body)
    yield body if answer.status_code == 200 else line(json.loads(body) | {"status": answer.status_code})
