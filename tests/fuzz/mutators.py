"""Changes of pictures that reach deep: pieces of files moved, doubled and made untrue, the rest right."""

from __future__ import annotations

import random

from fuzz import formats
from fuzz.directories import change_tiff
from fuzz.formats import Format
from fuzz.raw import LARGE, Change, change_bytes, copies


def change_picture(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """One to three changes that know the format of `data`; `plain` changes bytes of no known structure."""
    for _ in range(rng.randint(1, 3)):
        if len(data) > LARGE:
            break
        data = plain(data, rng) if rng.random() < 0.1 else _change(data, rng, plain)
    return data


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
    if data[:4] in formats.TIFF:
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
