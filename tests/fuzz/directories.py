"""Changes of TIFF files and EXIF blocks: entries of directories that lie, and directories that are in one another."""

from __future__ import annotations

import random
import struct

from fuzz.raw import NUMBERS, Change, change_bytes, copies

_TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339)
_TAGS += (347, 530, 532, 700, 33723, 34665, 34675, 34853, 40965, 50706)
_DIRECTORIES = (330, 0x8769, 0x8825, 0xA005)  # tags whose value is the place of another
_MOST = 20  # directories that are looked at


def change_tiff(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """Entries of one directory changed in place, or as a new first directory behind all else."""
    layout = _Layout(data)
    places = layout.directories()
    if not places or rng.random() < 0.1:
        return change_bytes(data, rng, plain)
    start = rng.choice(places)
    if rng.random() < 0.6:
        return layout.with_other_field(start, places, rng)
    entries = layout.entries(start)
    entries = _other_entries(entries or [bytes(layout.size)], layout, places, rng)
    return layout.with_first(entries, layout.behind(start))


def _other_entries(entries: list[bytes], layout: _Layout, places: list[int], rng: random.Random) -> list[bytes]:
    place, kind = rng.randrange(len(entries)), rng.random()
    if kind < 0.3:
        del entries[place]
    elif kind < 0.6:
        value = struct.pack(layout.pointer, rng.choice((*NUMBERS, *places)) % 2**32)
        count = rng.choice((1, 1, 1, 2, 3, 4, 9))
        entries.insert(place, struct.pack(layout.entry, rng.choice(_TAGS), rng.randint(1, 18), count, value))
    elif kind < 0.9:
        entries[place:place] = [entries[place]] * copies(rng, layout.size, 1, 1, 2, 40)
    else:
        rng.shuffle(entries)
    return entries


class _Layout:
    """Where things stand in a file, by its first bytes; `struct` calls a count, an entry and a place so."""

    def __init__(self, data: bytes) -> None:
        self._data, self.order, self._big = data, "<>"[data[:1] == b"M"], b"+" in data[2:4]
        self.count, self.entry, self.pointer = (
            self.order + kind for kind in (("Q", "HHQ8s", "Q") if self._big else ("H", "HHL4s", "L"))
        )
        self.size = struct.calcsize(self.entry)

    def directories(self) -> list[int]:
        """The places of those that the first one leads to, by their entries too, as far as they are whole."""
        found: list[int] = []
        try:
            waiting = [*struct.unpack_from(self.pointer, self._data, 8 if self._big else 4)]
            while waiting and len(found) < _MOST:
                start = waiting.pop()
                if start in found or not 8 <= start < len(self._data):
                    continue
                self._span(start)
                found.append(start)
                for entry in self.entries(start):
                    tag, _, _, value = struct.unpack(self.entry, entry)
                    waiting += struct.unpack(self.pointer, value) if tag in _DIRECTORIES else ()
                waiting += struct.unpack(self.pointer, self.behind(start))
        except struct.error:
            pass
        return found

    def _span(self, start: int) -> tuple[int, int]:
        """Where the entries of a directory begin, and how many it says there are."""
        return start + struct.calcsize(self.count), struct.unpack_from(self.count, self._data, start)[0]

    def entries(self, start: int) -> list[bytes]:
        """The whole ones of a directory."""
        first, count = self._span(start)
        whole = max(min(count, (len(self._data) - first) // self.size), 0)
        return [self._data[place : place + self.size] for place in range(first, first + whole * self.size, self.size)]

    def behind(self, start: int) -> bytes:
        """Where the next directory stands, as it is written; 0 where that is cut off."""
        first, count = self._span(start)
        length = struct.calcsize(self.pointer)
        return self._data[first + count * self.size :][:length].ljust(length, b"\0")

    def with_first(self, entries: list[bytes], behind: bytes) -> bytes:
        """The file with another first directory, at its end."""
        data = bytearray(self._data + bytes(len(self._data) % 2))
        struct.pack_into(self.pointer, data, 8 if self._big else 4, len(data))
        return bytes(data + struct.pack(self.count, len(entries)) + b"".join(entries) + behind)

    def with_other_field(self, start: int, places: list[int], rng: random.Random) -> bytes:
        """The file with a tag, kind, count or value of a directory's entry changed, or where the next one stands."""
        first, count = self._span(start)
        value = rng.choice((*NUMBERS, *places, *places, len(self._data) - 1, len(self._data)))
        number, place = rng.randint(0, min(count, 500)), rng.choice(("tag", "kind", "count", "value", "short"))
        at, wide = first + number * self.size, self.pointer
        if number < count:
            at += {"tag": 0, "kind": 2, "count": 4}.get(place, 12 if self._big else 8)
            wide = self.order + "H" if place in ("tag", "kind", "short") else wide
            value = {"tag": rng.choice(_TAGS), "kind": rng.randint(0, 20)}.get(place, value)
        if at + struct.calcsize(wide) > len(self._data):
            return self._data[: rng.randint(0, len(self._data))]
        changed = bytearray(self._data)
        struct.pack_into(wide, changed, at, value % 256 ** struct.calcsize(wide))
        return bytes(changed)
