"""The page at home: one restoration at a time, told tile by tile, for whoever sits at this computer."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import asyncio
import traceback
from collections.abc import AsyncGenerator, Collection
from typing import TYPE_CHECKING, Any

from ipt.page.answers import picture_answer, tell
from ipt.page.description import ABOUT, LOOK, RESTORE
from ipt.page.guard import Guard
from ipt.page.jobs import Job, Outcome, Workshop
from ipt.page.progress import LOOKS, PROGRESS, how_far, last_pieces, line, lines_until, progress_answer
from ipt.page.requests import Order, RequestError, check_order, read_body, read_order
from ipt.page.routes import MISTAKE, about, look_answer, new_app

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

_GONE = 499  # the status of a request whose sender does not wait for the answer
_BODY_SECONDS = 600.0


def create_app(workshop: Workshop, model: str, max_body: int, names: Collection[str] = ()) -> "FastAPI":
    """The application that serves the page; `model` is what it is called, `max_body` in bytes.

    It answers to addresses, localhost and `names` (`ipt.page.guard`).
    """
    from starlette.requests import Request
    from starlette.responses import Response

    app = new_app()
    app.add_middleware(Guard, names=names)

    @app.get("/about", **ABOUT)
    async def answer_about() -> dict[str, Any]:
        return about(workshop.model, model, max_body, workshop.max_pixels)

    @app.get("/readyz", summary="A test picture came through not long ago; 503, with the reason, where it did not")
    async def answer_ready() -> dict[str, str]:
        await workshop.canary.check()
        return {"status": "ready", "model": model}

    @app.post("/look", **LOOK, response_class=Response)
    async def answer_look(request: Request) -> Response:
        order = await _read(request, max_body)
        return look_answer(await workshop.look(order.image))

    @app.post("/restore", **RESTORE, response_class=Response)
    async def answer_restore(request: Request) -> Response:
        order = await _read(request, max_body)
        check_order(workshop.model, order)
        if PROGRESS in request.headers.get("accept", ""):
            return progress_answer(_progress(workshop, Job(order, True), model))
        outcome = await _outcome(workshop, Job(order), request)
        if outcome is None:
            return Response(status_code=_GONE)
        return picture_answer(request, outcome.content, outcome.kind, tell(outcome.plan, model))

    return app


async def _read(request: "Request", max_body: int) -> Order:
    return await read_order(request.headers, await read_body(request, max_body, _BODY_SECONDS))


async def _outcome(workshop: Workshop, job: Job, request: "Request") -> Outcome | None:
    """What becomes of a job; None, and the job is given up, where its sender has gone."""
    with workshop.submit(job) as future:
        while not (await asyncio.wait({future}, timeout=LOOKS))[0]:
            job.check()  # its last tile may take longer than a service that stops has time
            if await request.is_disconnected():
                return None
        return future.result()


async def _progress(workshop: Workshop, job: Job, model: str) -> AsyncGenerator[bytes]:
    """Lines of JSON while a job goes on, then what became of it; a sender that goes ends this, and so the job."""

    def look() -> dict[str, Any] | None:
        return None if job.cancelled.is_set() else how_far(job, workshop.ahead(job))

    with workshop.submit(job) as future:
        async for told in lines_until(future, look):
            yield told
        for piece in _ending(job, future, model):
            yield piece


def _ending(job: Job, future: asyncio.Future[Outcome], model: str) -> list[bytes]:
    try:
        job.check()
        outcome = future.result()
    except RequestError as refusal:
        return [line({"error": str(refusal), "status": refusal.status})]
    except Exception:  # a mistake of ours: told to whoever runs the service
        traceback.print_exc()
        return [line({"error": MISTAKE, "status": 500})]
    files = {"restored": (outcome.content, outcome.kind)}
    if outcome.preview:
        files["preview"] = outcome.preview
    return last_pieces(tell(outcome.plan, model) | {"unchanged": outcome.unchanged}, files)
