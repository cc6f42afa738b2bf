"""What OpenAPI says of a service's routes, from which clients can be made; for FastAPI."""

from __future__ import annotations

from typing import Any

from ipt.page.progress import PROGRESS
from ipt.restoring.restore import STRENGTHS

_FILE = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_NAMES = {"type": "array", "items": _TEXT}
_CHANCES = {"type": "object", "additionalProperties": {"type": "number"}}
_PICTURE = _FILE | {"description": "JPEG, PNG, WebP, TIFF, BMP, AVIF, perhaps HEIC."}
_BASE64 = {"type": "string", "format": "byte", "description": "The file's bytes in base64."}
_WISH = {
    "task": _TEXT | {"description": "What to do, by name. With neither this nor words, the picture decides."},
    "instruction": _TEXT | {"description": "What is wrong, in words."},
    "strength": {"type": "number", "minimum": STRENGTHS[0], "maximum": STRENGTHS[1], "default": 1.0},
}
_DONE = {
    "tasks": _NAMES | {"description": "What was done, in this order."},
    "by": {
        "type": "string",
        "enum": ["task", "instruction", "blind"],
        "description": "What decided; blind: the picture.",
    },
    "understood": {"anyOf": [_NAMES, {"type": "null"}], "description": "What the words ask for; null without words."},
    "probabilities": _CHANCES | {"description": "As the one who decided saw them."},
    "model": _TEXT,
}


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    listed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": listed}


def _order(properties: dict[str, Any]) -> dict[str, Any]:
    return _object(properties, ["image"]) | {"additionalProperties": False}


def _named(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


SCHEMAS = {
    "Error": _object({"error": _TEXT | {"description": "What is wrong, in one line."}}),
    "About": _object(
        {
            "model": _TEXT,
            "tasks": _NAMES,
            "strengths": {"type": "array", "items": {"type": "number"}, "description": "The least and the most."},
            "suffixes": _NAMES | {"description": "Of files that are read."},
            "max_body": _NUMBER | {"description": "Bytes."},
            "max_pixels": _NUMBER,
            "token": {"type": "boolean", "description": "Whether one is asked for."},
        }
    ),
    "LookForm": _order({"image": _PICTURE}),
    "LookJson": _order({"image": _BASE64}),
    "RestoreForm": _order({"image": _PICTURE} | _WISH),
    "RestoreJson": _order({"image": _BASE64} | _WISH),
    "Restored": _object({"image": _BASE64, "type": _TEXT | {"description": "The file's media type."}} | _DONE),
}


def refusals(reasons: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Answers by status that say why a request is not served."""
    content = {"application/json": _named("Error")}
    return {status: {"description": reason, "content": content} for status, reason in reasons.items()}


_REFUSED = refusals(
    {
        400: "No form or JSON, an unknown field or task, a task and an instruction, a strength out of range.",
        403: "A page of another site asks, or the host's name is not this service's.",
        408: "The body came too slowly.",
        413: "The body or the picture is too large.",
        415: "Another kind of body.",
        422: "No picture, or a damaged one.",
        503: "The service is stopping.",
        507: "Out of memory.",
    }
)


def _body(name: str) -> dict[str, Any]:
    """Of a body that we read ourselves.

    It does not say `required`: of two kinds of a required one openapi-python-client 0.28 and 0.29 make a module that
    cannot be imported (their issue 1451).
    """
    content = {"multipart/form-data": _named(f"{name}Form"), "application/json": _named(f"{name}Json")}
    return {"requestBody": {"content": content}}


def _answer(description: str, content: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    described = {name: {"schema": schema} for name, schema in headers.items()}
    return {"description": description, "content": content, "headers": described}


ABOUT: dict[str, Any] = {
    "operation_id": "about",
    "summary": "The model, its tasks and the limits",
    "response_model": None,
    "responses": {200: {"description": "All of it.", "content": {"application/json": _named("About")}}},
}
LOOK: dict[str, Any] = {
    "operation_id": "look",
    "summary": "What a browser can show of a picture",
    "description": "A JPEG of at most 2,560 pixels, or for TIFF and 16 bits a PNG of all; its facts in X-headers.",
    "openapi_extra": _body("Look"),
    "responses": {
        200: _answer(
            "The picture.",
            {"image/jpeg": {"schema": _FILE}, "image/png": {"schema": _FILE}},
            {
                "X-Width": _NUMBER,
                "X-Height": _NUMBER,
                "X-Format": _TEXT,
                "X-Bits": _NUMBER,
                "X-Shown": {"type": "string", "enum": ["file", "preview"]},
            },
        ),
        **_REFUSED,
    },
}
RESTORE: dict[str, Any] = {
    "operation_id": "restore",
    "summary": "Restore a picture",
    "description": "Answers a file of the same format, bit depth and metadata; what was done is in X-headers, or "
    "with `Accept: application/json` all is one object. "
    f"With `Accept: {PROGRESS}` lines of JSON tell how far it is; the last one, `done`, says which files follow "
    "it, and how many bytes each has.",
    "openapi_extra": _body("Restore"),
    "responses": {
        200: _answer(
            "The restored file.",
            {"image/*": {"schema": _FILE}, "application/json": _named("Restored"), PROGRESS: {"schema": _FILE}},
            {
                "X-Tasks": _TEXT,
                "X-By": _TEXT,
                "X-Understood": _TEXT,
                "X-Probabilities": _TEXT,
                "X-Model": _TEXT,
            },
        ),
        **_REFUSED,
    },
}
