"""What comes in at a service's door: bodies within limits, multipart or JSON, to an order, or a RequestError."""

from __future__ import annotations

import asyncio
import binascii
import json
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ipt.model import InstructIPT
from ipt.restoring.restore import check_strength
from ipt.understanding.instruction import MAX_CHARACTERS

if TYPE_CHECKING:  # starlette comes with the extra `page`
    from starlette.datastructures import Headers
    from starlette.requests import Request

NO_MEMORY = "out of memory; send a smaller picture, or try again when less is going on"
FIELDS = ("image", "task", "instruction", "strength")
_LONGEST_FIELD = 20_000  # bytes of a field of a form that is no file
_LONGEST_NUMBER = 30  # digits; of thousands Python makes no number
_LONGEST_TEXT = 300  # characters of a message
_LONG = 30_000  # bytes; an instruction of MAX_CHARACTERS has at most 24,000 in JSON, where all are escaped
_LONGEST_REST = len(FIELDS) * _LONG  # bytes of JSON beside the image
_PIECE = 2**16  # bytes
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  # of JSON
_ESCAPED = {b"\\/": b"/"} | {
    escaped % ord(character): character for character in (b"/", b"+", b"=") for escaped in (b"\\u%04x", b"\\u%04X")
}


class RequestError(Exception):
    """A request that is not served: the HTTP status and the reason, one line."""

    def __init__(self, status: int, reason: str) -> None:
        line = " ".join(reason.split())
        super().__init__(line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]} ...")
        self.status = status


@dataclass(frozen=True)
class Order:
    """An encoded picture and what is asked for; None: nothing said."""

    image: bytes = field(repr=False)  # asyncio.run makes a text of what its task returns: 25 times as large
    task: str | None = None
    instruction: str | None = None
    strength: float = 1.0


async def read_body(
    request: Request, limit: int, seconds: float, came: Callable[[int], None] = lambda size: None
) -> bytearray:
    """The body of a request; a RequestError of 413 for more than `limit` bytes and 408 for more than `seconds`.

    `came` is told of each piece how many bytes it has.
    """
    from starlette.requests import ClientDisconnect

    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal():
        raise RequestError(400, "Content-Length: expected a number")
    if len(announced) > _LONGEST_NUMBER or int(announced) > limit:
        raise RequestError(413, f"body: {announced} bytes; the limit is {limit}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "Content-Encoding: expected none; send the picture as it is")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                came(len(piece))
                if len(body) > limit:
                    raise RequestError(413, f"body: more than {limit} bytes, which is the limit")
    except TimeoutError:
        raise RequestError(408, f"body: not there after {seconds:g} seconds ({len(body)} bytes came)") from None
    except ClientDisconnect:
        raise RequestError(400, f"body: the connection ended after {len(body)} bytes") from None
    return body  # as it is: a copy would be as large


async def read_order(headers: Headers, body: bytes | bytearray) -> Order:
    """The order in a body of multipart/form-data or JSON; RequestErrors of 400 and 415 say what is wrong.

    Beside `body` this takes at most three times its size.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = await asyncio.to_thread(_read_json, body)
    elif kind == "multipart/form-data":
        fields = await _read_form(headers, body)
    else:
        raise RequestError(415, f"Content-Type: expected multipart/form-data or application/json, got '{kind}'")
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise RequestError(400, f"unknown field '{unknown[0]}'; expected {', '.join(FIELDS)}")
    image = fields.get("image")
    if not image:
        raise RequestError(400, "image: missing or empty; expected an encoded picture such as PNG or JPEG")
    return Order(image, _text(fields, "task"), _text(fields, "instruction"), _strength(fields.get("strength")))


def check_order(model: InstructIPT, order: Order) -> None:
    """Raise a RequestError of 400 for what `restore_image` would refuse whatever the picture."""
    words = order.instruction
    try:
        if order.task is not None and words is not None:
            raise ValueError("expected a task or an instruction, got both")
        if order.task is not None:
            model.task_index(order.task)
        if words is not None and len(words) > MAX_CHARACTERS:
            raise ValueError(f"instruction: expected at most {MAX_CHARACTERS} characters, got {len(words)}")
        check_strength(order.strength)
    except ValueError as error:
        raise RequestError(400, str(error)) from error


def _read_json(body: bytes | bytearray) -> dict[str, Any]:
    small, long, mark = _without_long_text(body)
    try:
        fields = json.loads(small)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"body: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RequestError(400, f"body: expected a JSON object, got {type(fields).__name__}")
    image = fields.get("image", "")
    if not isinstance(image, str):
        raise RequestError(400, f"image: expected base64 text, got {type(image).__name__}")
    if long is not None and image != mark:
        raise RequestError(400, f"body: a text of {len(long)} bytes that is not the image; expected at most {_LONG}")
    try:
        fields["image"] = _from_base64(image.encode() if long is None else long)
    except ValueError as error:
        raise RequestError(400, f"image: not base64: {error}") from error
    return fields


def _without_long_text(body: bytes | bytearray) -> tuple[bytes, memoryview | None, str]:
    """JSON with a mark in place of its one long text, that text between its quotes, None without one, and the mark.

    Made into `str`, a text with one emoji has four bytes for each of its characters; and lists of nothing have twenty
    times their bytes. So only what is small is parsed, and the picture is taken out of the bytes.
    """
    long, mark = None, secrets.token_hex(16)  # that no other text is
    at = first = last = 0
    while (begin := body.find(b'"', at)) >= 0:
        at = _end_of_text(body, begin)
        if at - begin > _LONG:
            if long is not None:
                raise RequestError(400, f"body: expected one text of more than {_LONG} bytes, the image, got another")
            long, first, last = memoryview(body)[begin + 1 : at - 1], begin, at
        elif at - (last - first) > _LONGEST_REST:
            break
    if len(body) - (last - first) > _LONGEST_REST:
        raise RequestError(400, f"body: more than {_LONGEST_REST} bytes beside the image, which is the limit")
    if long is None:
        return bytes(body), None, mark
    return bytes(body[:first]) + f'"{mark}"'.encode() + bytes(body[last:]), long, mark


def _end_of_text(body: bytes | bytearray, begin: int) -> int:
    """Behind the quote that ends the text of JSON which begins with the one at `begin`."""
    end = body.find(b'"', begin + 1)
    if end >= 0 and body.find(b"\\", begin + 1, end) < 0:  # as in a picture: a thirtieth of the time, in which all wait
        return end + 1
    text = _TEXT.match(body, begin)
    if text is None:
        raise RequestError(400, "body: not JSON: a text without an end")
    return text.end()


def _from_base64(text: bytes | memoryview) -> bytes:
    """What base64 text of JSON says; ValueError where it is none. Characters of base64 may be escaped, as some do."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        plain = bytes(text)
        if b"\\" not in plain:
            raise
    for escaped, character in _ESCAPED.items():
        plain = plain.replace(escaped, character)
    return binascii.a2b_base64(plain, strict_mode=True)


async def _read_form(headers: Headers, body: bytes | bytearray) -> dict[str, Any]:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    class InMemory(MultiPartParser):
        spool_max_size = 2**40  # bytes; a body is in memory already, its parts need not go to disk

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _PIECE):  # all at once, the parser would hold it twice
            yield bytes(body[start : start + _PIECE])
        yield b""

    try:
        form = await InMemory(
            headers, pieces(), max_files=1, max_fields=2 * len(FIELDS), max_part_size=_LONGEST_FIELD
        ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(400, f"body: not a form: {getattr(error, 'message', error)}") from error
    try:
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise RequestError(400, f"{name}: expected once")
            if isinstance(value, UploadFile) != (name == "image"):
                raise RequestError(400, f"{name}: expected a {'file' if name == 'image' else 'text'}")
            fields[name] = await value.read() if isinstance(value, UploadFile) else value
        return fields
    finally:
        await form.close()


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestError(400, f"{name}: expected text, got {type(value).__name__}")
    return value or None


def _strength(value: object) -> float:
    if value is None or value == "":
        return 1.0
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise RequestError(400, f"strength: expected a number, got {str(value)[:40]!r}") from None
