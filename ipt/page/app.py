"""The routes: the page and its files, what it has to know, a look at a picture, and restoring one."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipt.page.answers import picture_answer, refused, tell
from ipt.page.guard import Guard
from ipt.page.jobs import Job, Outcome, Workshop
from ipt.page.requests import Order, RequestError, check_order, read_body, read_order
from ipt.photos.images import FORMATS, MAX_PIXELS
from ipt.restoring.restore import STRENGTHS

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

PROGRESS = "application/vnd.instruct-ipt.progress"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LOOKS = 0.1  # seconds between two looks at how far a job is
_GONE = 499  # the status of a request whose sender does not wait for the answer
_BODY_SECONDS = 600.0
_MISTAKE = "the service made a mistake; its window has the reason"
_PICTURE = {"type": "string", "format": "binary", "description": "A JPEG, PNG, WebP, TIFF or BMP file."}
_WISH = {
    "task": {"type": "string", "description": "What to do, by name. With neither this nor words, the picture decides."},
    "instruction": {"type": "string", "description": "What is wrong, in words."},
    "strength": {"type": "number", "minimum": STRENGTHS[0], "maximum": STRENGTHS[1], "default": 1.0},
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, "content": {"application/json": {"schema": _ERROR}}}
    for status, reason in {
        400: "No form or JSON, an unknown field or task, a task and an instruction, a strength out of range.",
        403: "A page of another site asks, or the host's name is not this service's.",
        408: "The body came too slowly.",
        413: "The body or the picture is too large.",
        415: "Another kind of body.",
        422: "No picture, or a damaged one.",
        507: "Out of memory.",
    }.items()
}


def create_app(workshop: Workshop, model: str, max_body: int, names: Collection[str] = ()) -> "FastAPI":
    """The application that serves the page; `model` is what it is called, `max_body` in bytes.

    It answers to addresses, localhost and `names` (`ipt.page.guard`).
    """
    from fastapi import FastAPI

    app = FastAPI(
        title="Instruct-IPT",
        description="Restores photographs that are noisy, blurred, rainy, hazy or snowy.",
        docs_url=None,  # these pages would come from somewhere else
        redoc_url=None,
    )
    app.add_middleware(Guard, names=names)
    _add_errors(app)
    _add_page(app)
    _add_about(app, workshop, model, max_body)
    _add_look(app, workshop, max_body)
    _add_restore(app, workshop, model, max_body)
    return app


def _add_errors(app: "FastAPI") -> None:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    @app.exception_handler(RequestError)
    async def refuse(request: Request, refusal: RequestError) -> "Response":
        return refused(refusal)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> "Response":
        return refused(RequestError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    @app.exception_handler(Exception)
    async def own_mistake(request: Request, error: Exception) -> "Response":  # whose traceback is printed
        return refused(RequestError(500, _MISTAKE))


def _add_page(app: "FastAPI") -> None:
    from starlette.responses import Response

    def answer_with(content: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
        async def page_file() -> Response:
            return Response(content, media_type=kind)

        return page_file

    for file in (files("ipt.page") / "static").iterdir():
        path = "/" if file.name == "index.html" else f"/{file.name}"
        kind = _KINDS[Path(file.name).suffix]
        app.add_api_route(path, answer_with(file.read_bytes(), kind), include_in_schema=False)


def _add_about(app: "FastAPI", workshop: Workshop, model: str, max_body: int) -> None:
    about = {
        "model": model,
        "tasks": workshop.model.config.tasks,
        "strengths": STRENGTHS,
        "suffixes": tuple(FORMATS),
        "max_body": max_body,
        "max_pixels": MAX_PIXELS,
    }

    @app.get("/about", summary="The model, its tasks and the limits")
    async def answer_about() -> dict[str, Any]:
        return about


def _add_look(app: "FastAPI", workshop: Workshop, max_body: int) -> None:
    from starlette.requests import Request
    from starlette.responses import Response

    @app.post(
        "/look",
        summary="What a browser can show of a picture",
        description="A JPEG of at most 2,560 pixels, or for TIFF and 16 bits a PNG of all; its facts in X-headers.",
        openapi_extra=_body({"image": _PICTURE}),
        responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}, **_REFUSED},
        response_class=Response,
    )
    async def answer_look(request: Request) -> Response:
        order = await _read(request, max_body)
        look = await workshop.look(order.image)
        content, kind = look.preview
        facts = {name: str(getattr(look, name)) for name in ("width", "height", "format", "bits")}
        facts["shown"] = "file" if look.shows_file else "preview"  # of which all pixels can be seen
        return Response(content, media_type=kind, headers={f"X-{name}": fact for name, fact in facts.items()})


def _add_restore(app: "FastAPI", workshop: Workshop, model: str, max_body: int) -> None:
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse

    @app.post(
        "/restore",
        summary="Restore a picture",
        description="Answers a file of the same format, bit depth and metadata; what was done is in X-headers, or "
        "with `Accept: application/json` all is one object. "
        f"With `Accept: {PROGRESS}` lines of JSON tell how far it is; the last one, `done`, says which files follow "
        "it, and how many bytes each has.",
        openapi_extra=_body({"image": _PICTURE} | _WISH),
        responses={200: {"content": {"image/*": {}, "application/json": {}, PROGRESS: {}}}, **_REFUSED},
        response_class=Response,
    )
    async def answer_restore(request: Request) -> Response:
        order = await _read(request, max_body)
        check_order(workshop.model, order)
        if PROGRESS in request.headers.get("accept", ""):
            return StreamingResponse(_progress(workshop, Job(order, True), model), media_type=PROGRESS)
        outcome = await _outcome(workshop, Job(order), request)
        if outcome is None:
            return Response(status_code=_GONE)
        return picture_answer(request, outcome.content, outcome.kind, tell(outcome.plan, model))


async def _read(request: "Request", max_body: int) -> Order:
    return await read_order(request.headers, await read_body(request, max_body, _BODY_SECONDS))


async def _outcome(workshop: Workshop, job: Job, request: "Request") -> Outcome | None:
    """What becomes of a job; None, and the job is given up, where its sender has gone."""
    with workshop.submit(job) as future:
        while not (await asyncio.wait({future}, timeout=_LOOKS))[0]:
            job.check()  # its last tile may take longer than a service that stops has time
            if await request.is_disconnected():
                return None
        return future.result()


async def _progress(workshop: Workshop, job: Job, model: str) -> AsyncIterator[bytes]:
    """Lines of JSON while a job goes on, then what became of it; a sender that goes ends this, and so the job."""
    with workshop.submit(job) as future:
        last: dict[str, Any] = {}
        while not (future.done() or job.cancelled.is_set()):
            now = _how_far(workshop, job)
            if now != last:
                yield _line(now)
            last = now
            await asyncio.wait({future}, timeout=_LOOKS)
        for piece in _last_pieces(job, future, model):
            yield piece


def _how_far(workshop: Workshop, job: Job) -> dict[str, Any]:
    if job.tile:
        return {"tile": job.tile, "tiles": job.tiles, "tasks": job.plan.tasks if job.plan else ()}
    return {"waiting": workshop.ahead(job)}


def _last_pieces(job: Job, future: asyncio.Future[Outcome], model: str) -> list[bytes]:
    try:
        job.check()
        outcome = future.result()
    except RequestError as refusal:
        return [_line({"error": str(refusal), "status": refusal.status})]
    except Exception:  # a mistake of ours: told to whoever runs the service
        traceback.print_exc()
        return [_line({"error": _MISTAKE, "status": 500})]
    sent = {"restored": (outcome.content, outcome.kind)} | ({"preview": outcome.preview} if outcome.preview else {})
    told = tell(outcome.plan, model) | {"unchanged": outcome.unchanged}
    told["files"] = [{"name": name, "type": kind, "bytes": len(content)} for name, (content, kind) in sent.items()]
    return [_line({"done": told}), *(content for content, _ in sent.values())]


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that we read ourselves."""
    form = {"type": "object", "required": ["image"], "properties": properties, "additionalProperties": False}
    encoded = {"type": "string", "format": "byte", "description": "The file's bytes in base64."}
    as_json = form | {"properties": properties | {"image": encoded}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": as_json}}
    return {"requestBody": {"required": True, "content": content}}
