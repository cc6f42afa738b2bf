"""Bodies of requests: what becomes an order, and how everything else is refused."""

import asyncio
import base64
import contextlib
import json
import tracemalloc

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from ipt.page.requests import Order, RequestError, check_order, read_body, read_order

FORM = "multipart/form-data; boundary=b"


def part(name: str, value: bytes, file: bool = False) -> bytes:
    named = f'; filename="{name}"' if file else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"


def order(kind: str, body: bytes) -> Order:
    return asyncio.run(read_order(Headers({"content-type": kind}), body))


def refused(kind: str, body: bytes) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        order(kind, body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value.status, str(caught.value)


def test_forms_and_json_say_the_same():
    content = bytes(range(256)) * 9000  # more than starlette keeps in memory by itself
    form = (
        part("image", content, True) + part("instruction", b"clear the fog") + part("strength", b"0.5") + b"--b--\r\n"
    )
    text = {"image": base64.b64encode(content).decode(), "instruction": "clear the fog", "strength": 0.5}
    expected = Order(content, None, "clear the fog", 0.5)
    assert order(FORM, form) == expected
    assert order("application/json; charset=utf-8", json.dumps(text).encode()) == expected
    assert order(FORM, part("image", b"x", True) + part("task", b"") + b"--b--\r\n") == Order(b"x")
    assert order("application/json", b'{"image": "eA==", "task": null, "strength": null}') == Order(b"x")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "JSON object, got list"),
        (b"{}", "image: missing"),
        (b'{"image": ""}', "image: missing"),
        (b'{"image": 5}', "base64 text, got int"),
        (b'{"image": "%"}', "not base64"),
        (b'{"image": "\xc3\xa9"}', "not base64"),
        (b'{"image": "eA==", "task": ["derain"]}', "task: expected text, got list"),
        (b'{"image": "eA==", "model": "../../x"}', "unknown field 'model'"),
        (b'{"image": "eA==", "strength": "much"}', "strength: expected a number, got 'much'"),
        (b'{"image": "eA==", "strength": true}', "strength: expected a number"),
        (b'{"image": "eA==", "strength": 1' + b"0" * 4000 + b"}", "strength: expected a number"),
        (b'{"image": "eA==", "' + b"a" * 5000 + b'": 1}', "unknown field"),
    ],
)
def test_json_that_is_no_order(body, reason):
    status, message = refused("application/json", body)
    assert status == 400
    assert reason in message


def test_escaped_base64_and_long_instructions_are_read():
    content = bytes(range(256)) * 300
    text = base64.b64encode(content).decode()
    for character, escaped in (("/", "\\/"), ("/", "\\u002F"), ("+", "\\u002b"), ("=", "\\u003d")):
        for length in (256, None):  # in what is parsed, and beside it
            body = '{"image": "' + base64.b64encode(content[:length]).decode().replace(character, escaped) + '"}'
            assert order("application/json", body.encode()) == Order(content[:length])
    words = "\U0001f327" * 2000
    assert order("application/json", json.dumps({"instruction": words, "image": text}).encode()).instruction == words


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"image": "eA==", "task": "' + b"a" * 40_000 + b'"}', "40000 bytes that is not the image"),
        (b'{"image": "' + b"eA==" * 10_000 + b'", "task": "' + b"a" * 40_000 + b'"}', "expected one text of more"),
        (b'{"image": ["' + b"eA==" * 10_000 + b'"]}', "base64 text, got list"),
        (b'{"image": "' + b"eA==" * 10_000 + b'\\"}', "a text without an end"),
        (b'{"image": "' + b"eA=="[:2] * 20_000 + "\U0001f327".encode() + b'"}', "not base64"),
        (b'{"image": "' + b"AAAA" * 10_000 + b"\\\\/" + b'"}', "not base64"),
        (b'{"image": [' + b"[]," * 50_000 + b"1]}", "more than 120000 bytes beside the image"),
        (b'{"image": [' + b'"",' * 50_000 + b"1]}", "more than 120000 bytes beside the image"),
    ],
)
def test_what_json_holds_beside_the_picture_is_small(body, reason):
    status, message = refused("application/json", body)
    assert status == 400
    assert reason in message


def test_reading_takes_at_most_three_times_the_body():
    text = base64.b64encode(bytes(3_000_000))
    rain = "\U0001f327".encode()
    bodies = [
        ("application/json", b'{"image": "' + text + b'", "instruction": "' + rain + b'"}'),
        ("application/json", b'{"image": "' + text[:-4] + rain + b'"}'),
        ("application/json", b'{"image": "' + text.replace(b"AA", b"A\\/", 100_000) + b'"}'),
        ("application/json", b'{"image": [' + b"[]," * 1_300_000 + b"1]}"),
        (FORM, part("image", bytes(4_000_000), True) + b"--b--\r\n"),
    ]
    for kind, body in bodies:
        tracemalloc.start()
        with contextlib.suppress(RequestError):
            order(kind, body)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * len(body), (kind, body[:40])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "image: missing"),
        (b"nothing of the kind", "not a form"),
        (part("image", b"as text"), "image: expected a file"),
        (part("image", b"x", True) + part("task", b"derain", True), "not a form: Too many files"),
        (part("image", b"x", True) + part("task", b"a") + part("task", b"b"), "task: expected once"),
        (part("image", b"x", True) + part("instruction", b"a" * 30_000), "not a form"),
    ],
)
def test_forms_that_are_no_order(body, reason):
    status, message = refused(FORM, body + b"--b--\r\n" if body.startswith(b"--b") else body)
    assert status == 400
    assert reason in message


def test_other_kinds_of_content_are_refused():
    assert refused("text/plain", b"x")[0] == 415
    assert refused("", b"x")[0] == 415
    assert refused("multipart/form-data", b"x") == (400, "body: not a form: Missing boundary in multipart.")


def body_of(pieces: list[bytes], headers: dict[str, str], pause: float = 0) -> bytes:
    waiting = [*pieces]

    async def receive() -> dict:
        await asyncio.sleep(pause)
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    return asyncio.run(read_body(request, limit=10, seconds=0.2))


def test_bodies_have_limits_of_size_and_time():
    assert body_of([b"12345", b"67890"], {}) == b"1234567890"
    for pieces, headers, pause, status in (
        ([b""], {"content-length": "11"}, 0, 413),
        ([b""], {"content-length": "many"}, 0, 400),
        ([b""], {"content-length": "9" * 5000}, 0, 413),  # of which Python makes no number
        ([b"12345", b"678901"], {}, 0, 413),
        ([b"1"] * 9, {}, 0.1, 408),
        ([b"1"], {"content-encoding": "gzip"}, 0, 415),
    ):
        with pytest.raises(RequestError) as caught:
            body_of(pieces, headers, pause)
        assert caught.value.status == status


def test_wishes_are_refused_before_the_picture_is_read(model):
    check_order(model, Order(b"x"))
    for wish, reason in (
        (Order(b"x", "dance"), "unknown task"),
        (Order(b"x", "denoise", "remove the noise"), "got both"),
        (Order(b"x", None, "a" * 2001), "2000 characters"),
        (Order(b"x", strength=float("nan")), "strength"),
    ):
        with pytest.raises(RequestError, match=reason) as caught:
            check_order(model, wish)
        assert caught.value.status == 400
