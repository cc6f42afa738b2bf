"""Bodies that a service should refuse without harm to anybody else: broken, lying and huge files, and requests."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ipt.photos import jpeg

HUGE = 2**31 - 1  # pixels that a header claims
WIDE = 20_000  # pixels that a side has: 800 MB of 16 bits
_MANY_PAGES = 2000
_MANY_ENTRIES = 1000
_MANY_STRIPS = 1000
_JSON_BYTES = 30 * 2**20
_TYPES = {"H": 3, "L": 4}  # of TIFF: struct's letter to the number in a file
_CRASHES = Path(__file__).parents[1] / "tests/fixtures/crashes_pi_heif_1.4.0.heic"  # found by `make fuzz`


def hostile_bodies(boundary: str) -> dict[str, tuple[bytes, str]]:
    """By name a body and its content type, in multipart/form-data with `boundary` or as JSON."""
    form = f"multipart/form-data; boundary={boundary}"
    bodies = {name: (_form(boundary, content), form) for name, content in hostile_files().items()}
    good = _saved(_levels(), "PNG")
    bodies["strength NaN"] = _form(boundary, good, strength="nan"), form
    bodies["a form without an end"] = _form(boundary, good)[:-20], form
    bodies["JSON of 30 MiB of emoji"] = ('{"image": "' + "😀" * (_JSON_BYTES // 4) + '"}').encode(), "application/json"
    bodies["JSON of 30 MiB of lists"] = b"[" * _JSON_BYTES, "application/json"
    bodies["JSON with numbers as picture"] = json.dumps({"image": [1e308] * 10_000}).encode(), "application/json"
    return bodies


def hostile_files() -> dict[str, bytes]:
    """By name what is sent as a picture."""
    good = {kind: _saved(_levels(), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP")}
    return {
        **_tiffs(),
        **_pngs(),
        **_for_decoders(),
        "EPS named jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4000 4000\n%%EndComments\n{} loop\n",
        "BMP of 2^31 pixels a side": b"BM"
        + struct.pack("<LHHLLllHHLLllLL", 154, 0, 0, 54, 40, HUGE, HUGE, 1, 24, *[0] * 6),
        **{f"{kind}, half of it": content[: len(content) // 2] for kind, content in good.items()},
        **{f"{kind}, zeros inside": _overwritten(content) for kind, content in good.items()},
        "no picture": np.random.default_rng(0).bytes(100_000),
    }


def _tiffs() -> dict[str, bytes]:
    """TIFF files whose directories lie or go round in circles."""
    pages = [Image.fromarray(_levels()[:8, :8])] * _MANY_PAGES
    return {
        "TIFF whose directory points to itself": _tiff(_entries(8, 8), following=8),
        "TIFF whose Exif is its own directory": _tiff([*_entries(8, 8), (34665, "L", 8)]),
        # Without its last entry it is damaged wherever it is read.
        f"TIFF of {_MANY_ENTRIES} entries to itself": _tiff([(34665, "L", 8)] * _MANY_ENTRIES, b"")[:-16],
        "TIFF with two widths": _two_widths(),
        "TIFF of 2^31 pixels a side": _tiff(_entries(HUGE, HUGE)),
        "TIFF of NaN": _tiff(_entries(8, 8, bits=32, kind=3), np.full((8, 8, 3), np.nan, "<f4").tobytes()),
        f"TIFF of {_MANY_PAGES} pages": _saved_pages(pages),
    }


def _pngs() -> dict[str, bytes]:
    """PNG files that unpack to more than they say, or that begin with what they should not."""
    zeros = zlib.compress(bytes(100_000_000), 9)
    wide = _saved(_levels()[..., 0].astype(np.uint16) * 257, "PNG")
    return {
        "PNG of 2^31 pixels a side": png(HUGE, HUGE),
        "PNG, 100 MB of text in 100 kB": png(64, 64, chunk(b"zTXt", b"a\0\0" + zeros)),
        "PNG, 100 MB of profile in 100 kB": png(64, 64, chunk(b"iCCP", b"a\0\0" + zeros)),
        "PNG, 100 MB of pixels for 64 x 64": png(64, 64, chunk(b"IDAT", zeros)),
        "PNG of 30,000 pixels a side": png(30_000, 30_000, chunk(b"IDAT", zeros)),
        "PNG, 16 bits behind a text": wide[:8] + chunk(b"tEXt", b"Comment\0hello") + wide[8:],
    }


def _for_decoders() -> dict[str, bytes]:
    """Files that crash a decoder, or keep it at work: 12 megapixels, the service's limit, gone over again and again."""
    many, accepted = jpeg.MOST_SCANS * 5, jpeg.MOST_SCANS
    return {
        f"JPEG of {many} scans": many_scans(4000, 3000, many),
        f"JPEG of {accepted} scans without an end": many_scans(4000, 3000, accepted)[:-2],
        "HEIC that crashes its decoder": _CRASHES.read_bytes(),
    }


def many_scans(width: int, height: int, count: int) -> bytes:
    """A progressive JPEG of so many scans: its last one, of some ten bytes, is there again and again."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * (count - jpeg.scans(data)) + data[-2:]


def _levels() -> np.ndarray:
    """uint8 (64, 64, 3), noise."""
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


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


def _two_widths() -> bytes:
    """16-bit gray, WIDE pixels high: for who knows numbers of kind 18 it is WIDE wide, for others, as Pillow, 1.

    All its strips are one, of zeros.
    """
    rows, behind = WIDE // _MANY_STRIPS, 8 + 2 + 10 * 12 + 4
    packed = zlib.compress(bytes(2 * rows * WIDE), 9)
    places, sizes = behind + 8, behind + 8 + 4 * _MANY_STRIPS
    entries = [
        (256, 18, 1, behind), (256, 3, 1, 1), (257, 4, 1, WIDE), (258, 3, 1, 16), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, _MANY_STRIPS, places), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, _MANY_STRIPS, sizes),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *each) for each in entries) + bytes(4)
    told = [sizes + 4 * _MANY_STRIPS] * _MANY_STRIPS + [len(packed)] * _MANY_STRIPS
    return b"II*\0" + struct.pack("<L", 8) + directory + struct.pack(f"<Q{len(told)}L", WIDE, *told) + packed


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that says it has 8 bits and three colours, with these chunks between its first and its last."""
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG, with its length and sum."""
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def _form(boundary: str, image: bytes, **fields: str) -> bytes:
    begin = f"--{boundary}\r\nContent-Disposition: form-data; name="
    texts = "".join(f'{begin}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    return f'{texts}{begin}"image"; filename="in.jpg"\r\n\r\n'.encode() + image + f"\r\n--{boundary}--\r\n".encode()
