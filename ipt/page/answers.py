"""How a service answers: a picture with what was done in headers, all of it as JSON, or one line of what is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ipt.page.requests import RequestError
from ipt.photos.photo import Photo
from ipt.restoring.restore import Plan

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_MORE = {408: {"Connection": "close"}, 429: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}


def mime(photo: Photo) -> str:
    """What HTTP calls the format of a photograph."""
    return f"image/{photo.format.lower()}"


def tell(plan: Plan, model: str) -> dict[str, Any]:
    """What was done and why, for JSON; probabilities with three digits."""
    return {
        "tasks": plan.tasks,
        "by": plan.by,
        "understood": plan.understood,
        "probabilities": {name: round(value, 3) for name, value in plan.probabilities.items()},
        "model": model,
    }


def picture_answer(request: Request, content: bytes, kind: str, told: dict[str, Any]) -> Response:
    """The picture with the rest in headers, or all as JSON where the request accepts that."""
    from starlette.responses import Response

    if "application/json" in request.headers.get("accept", ""):
        return json_answer({"image": base64.b64encode(content).decode(), "type": kind} | told)
    headers = {
        "X-Tasks": _in_header(",".join(told["tasks"])),
        "X-By": told["by"],
        "X-Probabilities": json.dumps(told["probabilities"]),
        "X-Model": _in_header(told["model"]),
    }
    if told["understood"] is not None:
        headers["X-Understood"] = _in_header(",".join(told["understood"]))
    return Response(content, media_type=kind, headers=headers)


def _in_header(text: str) -> str:
    """A header holds ASCII alone; other characters stand there as in a URL."""
    return quote(text, safe=" ,:/@")


def json_answer(values: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """One line of JSON."""
    from starlette.responses import Response

    return Response(json.dumps(values) + "\n", status, headers, media_type="application/json")


def refused(refusal: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """The reason of a refusal as `{"error": ...}`, with its status."""
    return json_answer({"error": str(refusal)}, refusal.status, {**(headers or {})} | _MORE.get(refusal.status, {}))
