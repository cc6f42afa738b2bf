"""What every service of the page has: its files, its words for what goes wrong, and what OpenAPI says of its routes."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import json
from collections.abc import Callable, Coroutine
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipt.model import InstructIPT
from ipt.page.answers import refused
from ipt.page.requests import RequestError
from ipt.photos.images import FORMATS, READ_ONLY
from ipt.photos.look import Look
from ipt.restoring.restore import STRENGTHS

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response

PROGRESS = "application/vnd.instruct-ipt.progress"
MISTAKE = "the service made a mistake; its log has the reason"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PICTURE = {
    "type": "string",
    "format": "binary",
    "description": "JPEG, PNG, WebP, TIFF, BMP, AVIF, perhaps HEIC.",
}
_WISH = {
    "task": {"type": "string", "description": "What to do, by name. With neither this nor words, the picture decides."},
    "instruction": {"type": "string", "description": "What is wrong, in words."},
    "strength": {"type": "number", "minimum": STRENGTHS[0], "maximum": STRENGTHS[1], "default": 1.0},
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
REFUSED: dict[int | str, dict[str, Any]] = {
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


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that we read ourselves."""
    form = {"type": "object", "required": ["image"], "properties": properties, "additionalProperties": False}
    encoded = {"type": "string", "format": "byte", "description": "The file's bytes in base64."}
    as_json = form | {"properties": properties | {"image": encoded}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": as_json}}
    return {"requestBody": {"required": True, "content": content}}


# Of the routes, for FastAPI.
LOOK: dict[str, Any] = {
    "summary": "What a browser can show of a picture",
    "description": "A JPEG of at most 2,560 pixels, or for TIFF and 16 bits a PNG of all; its facts in X-headers.",
    "openapi_extra": _body({"image": _PICTURE}),
    "responses": {200: {"content": {"image/jpeg": {}, "image/png": {}}}, **REFUSED},
}
RESTORE: dict[str, Any] = {
    "summary": "Restore a picture",
    "description": "Answers a file of the same format, bit depth and metadata; what was done is in X-headers, or "
    "with `Accept: application/json` all is one object. "
    f"With `Accept: {PROGRESS}` lines of JSON tell how far it is; the last one, `done`, says which files follow "
    "it, and how many bytes each has.",
    "openapi_extra": _body({"image": _PICTURE} | _WISH),
    "responses": {200: {"content": {"image/*": {}, "application/json": {}, PROGRESS: {}}}, **REFUSED},
}


def new_app() -> "FastAPI":
    """An application with the page and its files at `/`, without other routes; what goes wrong is told in words."""
    from fastapi import FastAPI

    app = FastAPI(
        title="Instruct-IPT",
        description="Restores photographs that are noisy, blurred, rainy, hazy or snowy.",
        docs_url=None,  # these pages would come from somewhere else
        redoc_url=None,
    )
    _add_errors(app)
    _add_page(app)
    return app


def _add_errors(app: "FastAPI") -> None:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    @app.exception_handler(RequestError)
    async def refuse(request: Request, refusal: RequestError) -> "Response":
        return refused(refusal)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> "Response":
        refusal = RequestError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        return refused(refusal, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def own_mistake(request: Request, error: Exception) -> "Response":  # whose traceback is printed
        return refused(RequestError(500, MISTAKE))


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


def about(model: InstructIPT, name: str, max_body: int, max_pixels: int, token: bool = False) -> dict[str, Any]:
    """What the page has to know of the service: the model, its tasks, the limits, and whether a token is asked for."""
    return {
        "model": name,
        "tasks": model.config.tasks,
        "strengths": STRENGTHS,
        "suffixes": (*FORMATS, *READ_ONLY),
        "max_body": max_body,
        "max_pixels": max_pixels,
        "token": token,
    }


def look_answer(look: Look) -> "Response":
    """What a browser can show of a picture, and its facts in headers."""
    from starlette.responses import Response

    content, kind = look.preview
    facts = {name: str(getattr(look, name)) for name in ("width", "height", "format", "bits")}
    facts["shown"] = "file" if look.shows_file else "preview"  # of which all pixels can be seen
    return Response(content, media_type=kind, headers={f"X-{name}": fact for name, fact in facts.items()})


def line(values: dict[str, Any]) -> bytes:
    """A line of an answer of PROGRESS."""
    return json.dumps(values).encode() + b"\n"


def last_pieces(told: dict[str, Any], files: dict[str, tuple[bytes, str]]) -> list[bytes]:
    """The end of an answer of PROGRESS: what was done, and files with their media types."""
    listed = [{"name": name, "type": kind, "bytes": len(content)} for name, (content, kind) in files.items()]
    return [line({"done": told | {"files": listed}}), *(content for content, _ in files.values())]
