"""Directories of tags, as TIFF files and EXIF blocks have them; an EXIF block is a small TIFF file without pixels.

A directory is a dict from tag to (kind, count, value). The value is bytes in the file's byte order, or a directory.
"""

from __future__ import annotations

import struct
from typing import Literal

Order = Literal["<", ">"]  # of bytes, as `struct` and numpy call it
Tags = dict[int, tuple[int, int, "bytes | Tags"]]

ORIENTATION = 0x0112
BYTE, SHORT, LONG, UNDEFINED = 1, 3, 4, 7
_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # EXIF, GPS, interoperability
_ORDERS: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_ENTRIES = 20_000  # in all directories; cameras write some hundred
_INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}  # kind: how `struct` calls it


def read_tags(data: bytes) -> tuple[Order, Tags]:
    """The byte order ("<" or ">") and the first directory of a TIFF file or EXIF block.

    Entries of an unknown kind and those that point outside `data` are left out. A directory that is pointed at again is
    read once. Raises ValueError for other damage, and for more than _MOST_ENTRIES entries.
    """
    try:
        order = _ORDERS[data[:2]]
        big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
        (place,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
        return order, _read_directory(data, order, big, place, 2, {})
    except (KeyError, struct.error) as error:
        raise ValueError("its directory of tags is damaged or cut off") from error


def _read_directory(data: bytes, order: str, big: bool, start: int, deeper: int, seen: dict[int, int]) -> Tags:
    """`seen` holds the directories read so far: their places and numbers of entries."""
    head, entry, pointer = (f"{order}{formats}" for formats in (("Q", "HHQ8s", "Q") if big else ("H", "HHL4s", "L")))
    start = min(start, len(data))  # then struct says that it is outside
    (count,) = struct.unpack_from(head, data, start)
    seen[start] = min(count, len(data))
    if sum(seen.values()) > _MOST_ENTRIES:
        raise ValueError(f"its directories of tags have more than {_MOST_ENTRIES} entries")
    start += struct.calcsize(head)
    tags: Tags = {}
    room = len(data)
    for index in range(count):
        tag, kind, length, value = struct.unpack_from(entry, data, start + index * struct.calcsize(entry))
        size = _SIZES.get(kind, 0) * length
        room -= size  # entries that overlap could together ask for far more than the file has
        if len(value) < size <= room + size:
            (place,) = struct.unpack(pointer, value)
            value = data[place : place + size]
        if not 0 < size <= len(value) or tag in tags:
            continue
        if tag not in _DIRECTORIES:
            tags[tag] = (kind, length, value[:size])
        elif deeper and kind in _INTEGERS:
            (place,) = struct.unpack_from(order + _INTEGERS[kind], value)
            if place in seen:
                continue
            try:
                tags[tag] = (LONG, 1, _read_directory(data, order, big, place, deeper - 1, seen))
            except struct.error:
                continue
    return tags


def numbers(order: str, tags: Tags, tag: int, *default: int) -> tuple[int, ...]:
    """The whole numbers of a tag, or `default` where it is not there or holds something else."""
    kind, count, value = tags.get(tag, (0, 0, b""))
    if kind not in _INTEGERS or isinstance(value, dict):
        return default
    return struct.unpack(f"{order}{count}{_INTEGERS[kind]}", value)


def entry(order: str, *values: int, kind: int = LONG) -> tuple[int, int, bytes]:
    """What a directory holds for a tag of whole numbers."""
    return kind, len(values), struct.pack(f"{order}{len(values)}{_INTEGERS[kind]}", *values)


def pack_header(order: str, directory: int) -> bytes:
    """The first 8 bytes of a file or block whose directory stands at byte `directory`."""
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, directory)


def pack_tags(order: str, tags: Tags, start: int) -> bytes:
    """A directory as it stands at byte `start`, an even number, with its long values behind it."""
    behind = start + 2 + 12 * len(tags) + 4
    entries, values = [struct.pack(f"{order}H", len(tags))], b""
    for tag, (kind, count, value) in sorted(tags.items()):
        if isinstance(value, dict):
            value = pack_tags(order, value, behind + len(values))
        elif len(value) <= 4:
            entries.append(struct.pack(f"{order}HHL4s", tag, kind, count, value))
            continue
        entries.append(struct.pack(f"{order}HHLL", tag, kind, count, behind + len(values)))
        values += value + bytes(len(value) % 2)
    return b"".join(entries) + bytes(4) + values


def upright_exif(block: bytes) -> bytes | None:
    """An EXIF block that says orientation 1 and has no thumbnail; None where it is damaged beyond use.

    All else stays where it is, because maker notes are full of offsets that nobody else can mend.
    """
    try:
        upright, end = change_entries(block, {ORIENTATION: (ORIENTATION, 1)})
        struct.pack_into(_ORDERS[block[:2]] + "L", upright, end, 0)
    except (KeyError, struct.error):
        return None
    return bytes(upright)


def change_entries(data: bytes, changes: dict[int, tuple[int, int]]) -> tuple[bytearray, int]:
    """A copy in which tags of the first directory became another tag that is one SHORT: {tag: (new tag, number)}.

    The second value is where the copy has the place of its next directory. Raises KeyError or struct.error where
    `data` has no directory of the usual kind.
    """
    order = _ORDERS[data[:2]]
    version, start = struct.unpack_from(f"{order}HL", data, 2)
    if version == 43:
        raise KeyError("BigTIFF")
    (count,) = struct.unpack_from(f"{order}H", data, min(start, len(data)))
    changed, end = bytearray(data), start + 2 + 12 * count
    for place in range(start + 2, end, 12):
        (tag,) = struct.unpack_from(f"{order}H10x", data, place)
        if tag in changes:
            new, number = changes[tag]
            struct.pack_into(f"{order}HHLHH", changed, place, new, SHORT, 1, number, 0)
    return changed, end
