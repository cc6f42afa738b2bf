"""The pieces that picture files are made of: taken apart and put together again, with right lengths and checksums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

Piece = tuple[bytes, bytes]  # name and content
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the second two with places of 8 bytes
_NESTED = {b"meta": 4, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"iprp": 0, b"ipco": 0, b"iinf": 6}
_BARE = {0xD8, 0xD9, 0x01, *range(0xD0, 0xD8)}  # markers of JPEG without content
_MOST_UNPACKED = 1 << 20


@dataclass(frozen=True)
class Format:
    """How files of one format are told, taken apart, and put together from pieces."""

    is_one: Callable[[bytes], bool]
    split: Callable[[bytes], list[Piece]]
    join: Callable[[list[Piece]], bytes]


def _split_png(data: bytes) -> list[Piece]:
    pieces, place = [], len(PNG)
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">L4s", data, place)
        pieces.append((name, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return [*pieces, (b"", data[place:])] if place < len(data) else pieces


def _join_png(pieces: list[Piece]) -> bytes:
    return PNG + b"".join(
        struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body)) if name else body
        for name, body in pieces
    )


def _split_jpeg(data: bytes) -> list[Piece]:
    """A segment's name is its marker; what stands between segments, the packed pixels, has none."""
    pieces, place = [], 0
    while place + 2 <= len(data):
        if data[place] != 0xFF or data[place + 1] in (0, 0xFF):
            end = place + 1
            while end + 2 <= len(data) and (data[end] != 0xFF or data[end + 1] in {0, 0xFF, *range(0xD0, 0xD8)}):
                end += 1
            end = end if end + 2 <= len(data) else len(data)
            pieces.append((b"", data[place:end]))
            place = end
        elif data[place + 1] in _BARE:
            pieces.append((data[place : place + 2], b""))
            place += 2
        else:
            length = max(int.from_bytes(data[place + 2 : place + 4]), 2)
            pieces.append((data[place : place + 2], data[place + 4 : place + 2 + length]))
            place += 2 + length
    return pieces


def _join_jpeg(pieces: list[Piece]) -> bytes:
    parts = []
    for name, body in pieces:
        bare = not name or name[1] in _BARE
        parts.append(name + (b"" if bare else struct.pack(">H", min(len(body) + 2, 65535))) + body[:65533])
    return b"".join(parts)


def _split_riff(data: bytes) -> list[Piece]:
    pieces, place = [], 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sL", data, place)
        pieces.append((name, data[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    return pieces


def _join_riff(pieces: list[Piece]) -> bytes:
    body = b"".join(
        name + struct.pack("<L", len(content)) + content + bytes(len(content) % 2) for name, content in pieces
    )
    return b"RIFF" + struct.pack("<L", 4 + len(body)) + b"WEBP" + body


def _split_boxes(data: bytes) -> list[Piece]:
    pieces, place = [], 0
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">L4s", data, place)
        length = max(length, 8) if length else len(data) - place
        pieces.append((name, data[place + 8 : place + length]))
        place += length
    return pieces


def _join_boxes(pieces: list[Piece]) -> bytes:
    return b"".join(struct.pack(">L", 8 + len(body)) + name + body for name, body in pieces)


FORMATS = (
    Format(lambda data: data.startswith(PNG), _split_png, _join_png),
    Format(lambda data: data.startswith(JPEG), _split_jpeg, _join_jpeg),
    Format(lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _split_riff, _join_riff),
    Format(lambda data: data[4:8] == b"ftyp", _split_boxes, _join_boxes),
)
BOXES = FORMATS[3]


def format_of(data: bytes) -> Format | None:
    """The format of a file that consists of pieces."""
    return next((format for format in FORMATS if format.is_one(data)), None)


def inside(name: bytes, body: bytes) -> tuple[int, str] | None:
    """Where in a piece something begins that has a structure of its own, and what: "tiff", "zlib" or "boxes"."""
    if name in _NESTED:
        return _NESTED[name], "boxes"
    if name in (b"iCCP", b"zTXt") and b"\0\0" in body:
        return body.index(b"\0\0") + 2, "zlib"
    if name == b"IDAT":
        return 0, "zlib"
    for start in (0, 4, 6, 10):
        if body[start : start + 4] in TIFF:
            return start, "tiff"
    return None


def unpack(packed: bytes) -> bytes | None:
    """What zlib packed, at most a megabyte of it; None where it is no such thing."""
    try:
        return zlib.decompressobj().decompress(packed, _MOST_UNPACKED)
    except zlib.error:
        return None


def pack(plain: bytes) -> bytes:
    """The inverse."""
    return zlib.compress(plain, 9)
