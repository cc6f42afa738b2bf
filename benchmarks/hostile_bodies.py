"""Bodies that a service should refuse without harm to anybody else: broken, lying and huge files, and requests."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

HUGE = 2**31 - 1  # pixels that a header claims
_MANY_PAGES = 2000
_JSON_BYTES = 30 * 2**20
_TYPES = {"H": 3, "L": 4}  # of TIFF: struct's letter to the number in a file


def hostile_bodies(boundary: str) -> dict[str, tuple[bytes, str]]:
    """By name a body and its content type, in multipart/form-data with `boundary` or as JSON."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    good = {kind: _saved(levels, kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP")}
    pages = [Image.fromarray(levels[:8, :8])] * _MANY_PAGES
    files = {
        "TIFF whose directory points to itself": _tiff(_entries(8, 8), following=8),
        "TIFF whose Exif is its own directory": _tiff([*_entries(8, 8), (34665, "L", 8)]),
        "TIFF with two widths": _tiff([*_entries(8, 8)[:1], (256, "L", HUGE), *_entries(8, 8)[1:]]),
        "TIFF of 2^31 pixels a side": _tiff(_entries(HUGE, HUGE)),
        "TIFF of NaN": _tiff(_entries(8, 8, bits=32, kind=3), np.full((8, 8, 3), np.nan, "<f4").tobytes()),
        f"TIFF of {_MANY_PAGES} pages": _saved_pages(pages),
        "EPS named jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4000 4000\n%%EndComments\n{} loop\n",
        "PNG of 2^31 pixels a side": _png(HUGE, HUGE),
        "PNG, 100 MB of text in 100 kB": _png(64, 64, (b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))),
        "PNG, 100 MB of profile in 100 kB": _png(64, 64, (b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))),
        "PNG, 100 MB of pixels for 64 x 64": _png(64, 64, (b"IDAT", zlib.compress(bytes(100_000_000), 9))),
        "PNG of 30,000 pixels a side": _png(30_000, 30_000, (b"IDAT", zlib.compress(bytes(100_000_000), 9))),
        "BMP of 2^31 pixels a side": b"BM"
        + struct.pack("<LHHLLllHHLLllLL", 154, 0, 0, 54, 40, HUGE, HUGE, 1, 24, *[0] * 6),
        **{f"{kind}, half of it": content[: len(content) // 2] for kind, content in good.items()},
        **{f"{kind}, zeros inside": _overwritten(content) for kind, content in good.items()},
        "no picture": rng.bytes(100_000),
    }
    form = f"multipart/form-data; boundary={boundary}"
    bodies = {name: (_form(boundary, content), form) for name, content in files.items()}
    bodies["strength NaN"] = _form(boundary, good["PNG"], strength="nan"), form
    bodies["a form without an end"] = _form(boundary, good["PNG"])[:-20], form
    bodies["JSON of 30 MiB of emoji"] = ('{"image": "' + "😀" * (_JSON_BYTES // 4) + '"}').encode(), "application/json"
    bodies["JSON of 30 MiB of lists"] = b"[" * _JSON_BYTES, "application/json"
    bodies["JSON with numbers as picture"] = json.dumps({"image": [1e308] * 10_000}).encode(), "application/json"
    return bodies


def _saved(levels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


def _saved_pages(pages: list[Image.Image]) -> bytes:
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return buffer.getvalue()


def _overwritten(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(40) + content[middle + 40 :]


def _entries(width: int, height: int, bits: int = 8, kind: int = 1) -> list[tuple[int, str, int]]:
    """Tags of an RGB picture in one strip; `kind` 1 are levels, 3 floats."""
    strip = 8 + 2 + 11 * 12 + 4
    return [
        (256, "L", width), (257, "L", height), (258, "H", bits), (259, "H", 1), (262, "H", 2), (273, "L", strip),
        (277, "H", 3), (278, "L", height), (279, "L", 8 * 8 * 3 * bits // 8), (284, "H", 1), (339, "H", kind),
    ]  # fmt: skip


def _tiff(entries: list[tuple[int, str, int]], strip: bytes = bytes(8 * 8 * 3), following: int = 0) -> bytes:
    """A TIFF file of one directory, which begins at byte 8; `following` is where the next one is said to be."""
    directory = struct.pack("<H", len(entries))
    for tag, letter, value in entries:
        directory += struct.pack(f"<HHL{letter}", tag, _TYPES[letter], 1, value).ljust(12, b"\0")
    return b"II*\0" + struct.pack("<L", 8) + directory + struct.pack("<L", following) + strip


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _form(boundary: str, image: bytes, **fields: str) -> bytes:
    begin = f"--{boundary}\r\nContent-Disposition: form-data; name="
    texts = "".join(f'{begin}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    return f'{texts}{begin}"image"; filename="in.jpg"\r\n\r\n'.encode() + image + f"\r\n--{boundary}--\r\n".encode()
