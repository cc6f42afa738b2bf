"""Changes that reach deep: pieces of files and entries of directories moved, doubled, made untrue, the rest right."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from fuzz import formats
from fuzz.formats import Format

Change = Callable[[bytes, random.Random], bytes]
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 42, 43, 127, 128, 255, 256, 4096, 10_000, 32767, 32768, 65535, 65536)
_NUMBERS += (3000 * 4000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339)
_TAGS += (347, 530, 532, 700, 33723, 34665, 34675, 34853, 40965, 50706)
LARGE = 60_000  # bytes of an input that grows no more


def change_picture(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """One to three changes that know the format of `data`; `plain` changes bytes of no known structure."""
    for _ in range(rng.randint(1, 3)):
        if len(data) > LARGE:
            break
        data = plain(data, rng) if rng.random() < 0.1 else _change(data, rng, plain)
    return data


def copies(rng: random.Random, size: int, *numbers: int) -> int:
    """One of some numbers of copies of so many bytes, but for those that would make a large input."""
    return min(rng.choice(numbers), LARGE // max(size, 1))


def cross_pictures(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """`data` with pieces of another file of its format, anywhere; of other files the beginning and an end."""
    ours, theirs = formats.format_of(data), formats.format_of(other)
    if ours is None or ours is not theirs:
        return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
    pieces, more = ours.split(data), ours.split(other)
    for piece in rng.sample(more, min(len(more), rng.randint(1, 4))):
        place = rng.randint(0, len(pieces))
        pieces[place : place + rng.randint(0, 1)] = [piece]
    return ours.join(pieces)


def _change(data: bytes, rng: random.Random, plain: Change) -> bytes:
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return change_tiff(data, rng, plain)
    known = formats.format_of(data)
    if known is None:
        return change_bytes(data, rng, plain)
    return _change_pieces(known, data, rng, plain)


def _change_pieces(known: Format, data: bytes, rng: random.Random, plain: Change) -> bytes:
    pieces = known.split(data)
    if not pieces:
        return change_bytes(data, rng, plain)
    kind, place = rng.random(), rng.randrange(len(pieces))
    if kind < 0.65:
        pieces[place] = pieces[place][0], _change_content(*pieces[place], rng, plain)
    elif kind < 0.75:
        del pieces[place]
    elif kind < 0.85:
        pieces[place:place] = [pieces[place]] * copies(rng, len(pieces[place][1]), 1, 1, 2, 40)
    elif kind < 0.95:
        pieces.insert(rng.randint(0, len(pieces) - 1), pieces.pop(place))
    else:
        pieces[place] = pieces[rng.randrange(len(pieces))][0], pieces[place][1]
    return known.join(pieces)


def _change_content(name: bytes, body: bytes, rng: random.Random, plain: Change) -> bytes:
    found = formats.inside(name, body)
    if found is None or rng.random() < 0.2:
        return change_bytes(body, rng, plain)
    start, what = found
    head, rest = body[:start], body[start:]
    if what == "tiff":
        return head + change_tiff(rest, rng, plain)
    if what == "boxes":
        return head + _change_pieces(formats.BOXES, rest, rng, plain)
    unpacked = formats.unpack(rest)
    if unpacked is None:
        return change_bytes(body, rng, plain)
    if rng.random() < 0.1:
        return head + formats.pack(unpacked + bytes(rng.choice((1, 1000, 10**6))))
    return head + formats.pack(change_bytes(unpacked, rng, plain))


def change_bytes(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """A number that matters at any place, in any width and order, or a `plain` change, or bytes doubled or gone."""
    kind = rng.random()
    if kind < 0.4 or not data:
        return plain(data, rng)
    place = rng.randrange(len(data))
    if kind < 0.8:
        width, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
        number = (rng.choice(_NUMBERS) + rng.choice((0, 0, 0, -1, 1))) % 256**width
        return data[:place] + number.to_bytes(width, order) + data[place + width :]
    end = min(len(data), place + rng.choice((1, 2, 4, 16, 200)))
    return data[:place] + data[place:end] * copies(rng, end - place, 0, 0, 2, 3, 40) + data[end:]


def change_tiff(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """A TIFF file or EXIF block with entries of a directory changed in place, or with another first directory."""
    order, big = "<>"[data[:1] == b"M"], data[2:4] in (b"+\0", b"\0+")
    places = _directories(data, order, big)
    if not places or rng.random() < 0.1:
        return change_bytes(data, rng, plain)
    start = rng.choice(places)
    if rng.random() < 0.6:
        return _change_entry(data, order, big, start, places, rng)
    head, entry, pointer = _shapes(order, big)
    (count,) = struct.unpack_from(head, data, start)
    size = struct.calcsize(entry)
    first = start + struct.calcsize(head)
    entries = [data[place : place + size] for place in range(first, min(first + count * size, len(data)), size)]
    entries = [entry for entry in entries if len(entry) == size] or [bytes(size)]
    behind = data[first + count * size :][: struct.calcsize(pointer)].ljust(struct.calcsize(pointer), b"\0")
    place = rng.randrange(len(entries))
    kind = rng.random()
    if kind < 0.3:
        del entries[place]
    elif kind < 0.6:
        tag = rng.choice(_TAGS)
        value = rng.choice((*_NUMBERS, *places)) % 2**32
        new = struct.pack(
            entry,
            tag,
            rng.choice((1, 2, 3, 3, 4, 4, 5, 7, 13)),
            rng.choice((1, 1, 1, 2, 3, 4, 9)),
            struct.pack(pointer, value),
        )
        entries.insert(place, new)
    elif kind < 0.9:
        entries[place:place] = [entries[place]] * copies(rng, size, 1, 1, 2, 40)
    else:
        rng.shuffle(entries)
    data += bytes(len(data) % 2)
    grown = bytearray(data + struct.pack(head, len(entries)) + b"".join(entries) + behind)
    struct.pack_into(pointer, grown, 8 if big else 4, len(data))
    return bytes(grown)


def _change_entry(data: bytes, order: str, big: bool, start: int, places: list[int], rng: random.Random) -> bytes:
    head, entry, pointer = _shapes(order, big)
    (count,) = struct.unpack_from(head, data, start)
    changed, size = bytearray(data), struct.calcsize(entry)
    at = start + struct.calcsize(head) + rng.randint(0, min(count, 500)) * size  # the last: where the next one stands
    value = rng.choice((*_NUMBERS, *places, *places, len(data) - 1, len(data)))
    field, where = rng.choice((("H", 0), ("H", 2), (pointer[1], 4), (pointer[1], size // 2 + 2), ("H", size // 2 + 2)))
    where = 0 if at + size > len(data) else where
    field = pointer[1] if where == 0 and at + size > len(data) else field
    width = struct.calcsize(order + field)
    if at + where + width > len(data):
        return data[: rng.randint(0, len(data))]
    if (field, where) == ("H", 0):
        value = rng.choice(_TAGS)
    elif (field, where) == ("H", 2):
        value = rng.randint(0, 20)
    struct.pack_into(order + field, changed, at + where, value % 256**width)
    return bytes(changed)


def _shapes(order: str, big: bool) -> tuple[str, str, str]:
    """How `struct` calls a directory's count, its entries, and what points at a place."""
    return (order + "Q", order + "HHQ8s", order + "Q") if big else (order + "H", order + "HHL4s", order + "L")


def _directories(data: bytes, order: str, big: bool) -> list[int]:
    """Where directories stand that the first one leads to, also through its entries; at most twenty."""
    head, entry, pointer = _shapes(order, big)
    found: list[int] = []
    try:
        waiting = list(struct.unpack_from(pointer, data, 8 if big else 4))
        while waiting and len(found) < 20:
            start = waiting.pop()
            if start in found or not 8 <= start < len(data):
                continue
            (count,) = struct.unpack_from(head, data, start)
            found.append(start)
            first = start + struct.calcsize(head)
            for number in range(min(count, 200)):
                tag, _, _, value = struct.unpack_from(entry, data, first + number * struct.calcsize(entry))
                if tag in (330, 0x8769, 0x8825, 0xA005):
                    waiting += struct.unpack_from(pointer, value)
            waiting += struct.unpack_from(pointer, data, first + count * struct.calcsize(entry))
    except (struct.error, OverflowError):
        pass
    return found
