"""What every service of the page has: its files, its words for what goes wrong, and what it is."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
from collections.abc import Callable, Coroutine
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipt.model import InstructIPT
from ipt.page.answers import refused
from ipt.page.description import SCHEMAS
from ipt.page.requests import RequestError
from ipt.photos.images import FORMATS, READ_ONLY
from ipt.photos.look import Look
from ipt.restoring.restore import STRENGTHS

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response

MISTAKE = "the service made a mistake; its log has the reason"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def new_app() -> "FastAPI":
    """An application with the page and its files at `/`, without other routes; what goes wrong is told in words."""
    from fastapi import FastAPI

    class Described(FastAPI):
        def openapi(self) -> dict[str, Any]:
            described = super().openapi()
            described.setdefault("components", {})["schemas"] = SCHEMAS
            return described

    app = Described(
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
        if file.name.startswith("."):  # which macOS leaves in folders that were looked at
            continue
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
