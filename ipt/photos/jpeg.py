"""What Pillow leaves open with JPEG: how often a file goes over its picture."""

from __future__ import annotations

import re

MOST_SCANS = 100  # as libtiff has it; encoders write about ten
_NEXT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # a marker, behind packed pixels: not 0, nor one of a restart
_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_SCAN, _END = 0xDA, 0xD9


def scans(data: bytes) -> int:
    """How many scans the first picture of a JPEG file has, counted up to one more than MOST_SCANS.

    Each costs time for all of its pixels, and may have no more than twenty bytes.
    """
    place, count = 0, 0
    while (marker := _NEXT.search(data, place)) and count <= MOST_SCANS:
        kind, place = data[marker.end() - 1], marker.end()
        if kind == _END:
            break
        if kind not in _BARE:
            place += max(int.from_bytes(data[place : place + 2]), 2)
        count += kind == _SCAN
    return count
