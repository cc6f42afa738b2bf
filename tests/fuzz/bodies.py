"""Changes of requests and of JSON: headers, the parts of a form, and trees of values."""

from __future__ import annotations

import json
import random
from typing import Any

from fuzz.raw import LARGE, Change, change_bytes, copies

_TYPES = (
    b"application/json",
    b"multipart/form-data; boundary=b",
    b"multipart/form-data",
    b"multipart/form-data; boundary=",
)
_TYPES += (b'multipart/form-data; boundary="b"; charset=utf-16', b"APPLICATION/JSON;;", b"text/plain", b"\xff\xfe")
_TYPES += (b"multipart/form-data; charset=\xe9; boundary=b", b"multipart/form-data; boundary=" + b"b" * 300)
_HEADERS = {
    b"content-type": _TYPES,
    b"content-length": (b"0", b"5", b"1000001", b"-1", b"1e3", b"9" * 5000, b"\xb2", b" 7", b"+7", b"0x5"),
    b"content-encoding": (b"identity", b"gzip", b"br", b""),
    b"host": (b"localhost", b"127.0.0.1:8000", b"[::1]:1", b"[", b"evil.example", b"a@b:c", b"\xff", b"127.0.0.1:x"),
    b"origin": (b"null", b"http://localhost", b"http://[", b"//", b"http://a:b:c"),
    b"sec-fetch-site": (b"cross-site", b"same-site", b"none"),
}
_PART_HEADERS = (
    b'Content-Disposition: form-data; name="task"',
    b"Content-Disposition: form-data",
    b'Content-Disposition: form-data; name="image"; filename="x"',
    b"Content-Disposition: form-data; name*=utf-8''a%ff",
    b'content-disposition: form-data; name="\xed\xa0\x80"',
    b"Content-Type: \xff",
    b"Content-Transfer-Encoding: base64",
    b"X: " + b"y" * 9000,
)
_NAMES = (b"image", b"task", b"instruction", b"strength", b"", b"model", b"image[]", b"\xff")
_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    float("inf"),
    float("nan"),
    10**400,
    "",
    "eA==",
    "eA=",
    "é",
    "\0",
)
_VALUES += (
    "\ud800",
    "\U0001f327" * 50,
    "a" * 31_000,
    "eA==" * 8000,
    "AAAA" * 8000 + "\\/",
    [],
    {},
    "derain",
    "nan",
    "1_0",
)
_DEEP = 3000


def change_request(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """One to three changes of headers, a blank line and a body: a line of the head, or a part of the body."""
    for _ in range(rng.randint(1, 3)):
        if len(data) > LARGE:
            break
        head, _, body = data.partition(b"\n\n")
        if rng.random() < 0.3:
            lines = head.split(b"\n")
            name = rng.choice([*_HEADERS])
            lines = [line for line in lines if not line.startswith(name) or rng.random() < 0.1]
            head = b"\n".join([*lines, name + b": " + rng.choice(_HEADERS[name])])
        elif rng.random() < 0.1:
            body = plain(body, rng)
        elif body.lstrip()[:1] in (b"{", b"["):
            body = change_json(body, rng, plain)
        else:
            body = _change_form(body, rng, plain)
        data = head + b"\n\n" + body
    return data


def change_json(text: bytes, rng: random.Random, plain: Change) -> bytes:
    """JSON with a value or a name changed, or text that is nearly JSON."""
    kind = rng.random()
    if kind < 0.2:
        return change_bytes(text, rng, plain)
    if kind < 0.25:
        place = rng.randint(0, len(text))
        return text[:place] + rng.choice((b"[", b'{"a":', b'"', b"\\u", b"[],", b'"",')) * _DEEP + text[place:]
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return change_bytes(text, rng, plain)
    tree = change_tree(tree, rng)
    try:
        changed = json.dumps(tree, ensure_ascii=rng.random() < 0.7)
    except RecursionError:
        return text
    if rng.random() < 0.2:
        changed = changed.replace("/", "\\/").replace("=", "\\u003d")
    return changed.encode(errors="surrogatepass")


def change_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of JSON with one place in it changed."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        name = rng.choice([*tree])
        if rng.random() < 0.2:
            return tree | {rng.choice(_NAMES).decode(errors="replace"): rng.choice(_VALUES)}
        if rng.random() < 0.1:
            return {key: value for key, value in tree.items() if key != name}
        return tree | {name: change_tree(tree[name], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        place = rng.randrange(len(tree))
        item = change_tree(tree[place], rng)
        return [*tree[:place], *[item] * copies(rng, len(str(item)), 0, 1, 1, 2, 50), *tree[place + 1 :]]
    if isinstance(tree, int | float) and rng.random() < 0.5:
        return rng.choice((-1, 0, 1, 2, 7, 2**15, 2**31, 2**53, 2**63, 2**64, tree + 1, tree * 2, -tree, 0.5))
    return rng.choice((*_VALUES, [tree], {"a": tree}))


def _change_form(body: bytes, rng: random.Random, plain: Change) -> bytes:
    parts = body.split(b"--b")
    place = rng.randrange(len(parts))
    kind = rng.random()
    if kind < 0.2:
        parts[place:place] = [parts[place]] * copies(rng, len(parts[place]), 1, 2, 12, 2000)
    elif kind < 0.3:
        del parts[place]
    elif kind < 0.5:
        parts[place] = parts[place].replace(rng.choice(_NAMES) or b"=", rng.choice(_NAMES), 1)
    elif kind < 0.7:
        parts[place] = b"\r\n" + rng.choice(_PART_HEADERS) + parts[place]
    else:
        parts[place] = change_bytes(parts[place], rng, plain)
    return b"--b".join(parts)
