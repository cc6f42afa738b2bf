"""Directories of tags: packed and read again, and damage."""

import struct
import time

import pytest
from fuzz.limits import limits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD

from ipt.photos.tags import (
    ORIENTATION,
    SHORT,
    change_entries,
    entry,
    numbers,
    pack_header,
    pack_tags,
    read_tags,
    upright_exif,
)

EXIF, GPS, BETWEEN = 0x8769, 0x8825, 0xA005


def block(order, tags):
    return pack_header(order, 8) + pack_tags(order, tags, 8)


def some_tags(order):
    """A directory with others inside, and values that fit an entry or do not."""
    inner = {0x829D: (5, 1, struct.pack(f"{order}LL", 28, 10)), 0x927C: (7, 7, b"maker\0n")}
    deepest = {1: (2, 4, b"R98\0")}
    return {
        ORIENTATION: entry(order, 6, kind=SHORT),
        0x0110: (2, 9, b"Camera 5\0"),
        0x0111: entry(order, 1, 2, 70_000),
        EXIF: (4, 1, inner | {BETWEEN: (4, 1, deepest)}),
        GPS: (4, 1, {1: (2, 2, b"N\0"), 2: (5, 3, struct.pack(f"{order}6L", 52, 1, 31, 1, 12, 1))}),
    }


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_is_packed_is_read(order):
    assert read_tags(block(order, some_tags(order))) == (order, some_tags(order))


@pytest.mark.parametrize("order", ["<", ">"])
def test_pillow_reads_what_is_packed(order):
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + block(order, some_tags(order)))
    assert (exif[ORIENTATION], exif[0x0110]) == (6, "Camera 5")
    assert exif.get_ifd(IFD.Exif)[0x829D] == 2.8
    assert exif.get_ifd(IFD.GPSInfo)[2] == (52, 31, 12)
    assert exif.get_ifd(IFD.Interop)[1] == "R98"


def test_numbers_are_read_and_other_values_are_not():
    for order in "<>":
        tags = some_tags(order)
        assert numbers(order, tags, ORIENTATION) == (6,)
        assert numbers(order, tags, 0x0111) == (1, 2, 70_000)
        assert numbers(order, tags, 0x0110, 1) == (1,)
        assert numbers(order, tags, 999) == ()


def test_entries_that_are_damaged_are_left_out_and_the_rest_is_kept():
    data = bytearray(block("<", {1: (2, 9, b"Camera 5\0"), 2: entry("<", 5), 3: entry("<", 6), EXIF: (4, 1, {})}))
    struct.pack_into("<L", data, 10 + 8, len(data))  # the value of 1 lies outside
    struct.pack_into("<H", data, 10 + 12 + 2, 99)  # 2 is of no known kind
    struct.pack_into("<L", data, 10 + 36 + 8, 10**9)  # the directory lies outside
    assert read_tags(bytes(data)) == ("<", {3: entry("<", 6)})


def test_a_directory_inside_itself_ends():
    data = bytearray(block("<", {EXIF: (4, 1, {})}))
    struct.pack_into("<L", data, 10 + 8, 8)
    _, tags = read_tags(bytes(data))
    assert tags == {}


def test_many_entries_that_point_at_one_directory_read_it_once():
    """Each of k entries of a directory that is damaged at its end: read for each of k at three depths, it took k^3."""
    count = 4000
    entries = b"".join(struct.pack("<HHLL", EXIF, 4, 1, 8) for _ in range(count))
    data = struct.pack("<2sHLH", b"II", 42, 8, count) + entries
    started = time.process_time()
    assert read_tags(data + bytes(4))[1] == {}
    with pytest.raises(ValueError, match="damaged or cut off"):
        read_tags(data[:-12])
    assert time.process_time() - started < 2


@pytest.mark.parametrize("big", [False, True])
def test_more_entries_than_any_camera_writes_are_refused(big):
    head, entry_, count = ("<2sHHHQQ", "<HHQQ", 30_000) if big else ("<2sHLH", "<HHLL", 30_000)
    start = (b"II", 43, 8, 0, 16, count) if big else (b"II", 42, 8, count)
    data = struct.pack(head, *start) + b"".join(struct.pack(entry_, n, 3, 1, 0) for n in range(count)) + bytes(8)
    with pytest.raises(ValueError, match="more than 20000 entries"):
        read_tags(data)


def test_overlapping_entries_cannot_ask_for_more_than_there_is():
    data = struct.pack("<2sHLH", b"II", 42, 8, 1000)
    data += b"".join(struct.pack("<HHLL", tag, 7, 12_000, 8) for tag in range(1000)) + bytes(4)
    assert len(read_tags(data)[1]) == 1


@pytest.mark.parametrize("data", [b"", b"II", b"hello world", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09"])
def test_what_is_no_directory_is_told(data):
    with pytest.raises(ValueError, match="damaged or cut off"):
        read_tags(data)
    assert upright_exif(data) is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_upright_changes_the_orientation_and_nothing_else(order):
    data = block(order, some_tags(order))
    upright = upright_exif(data)
    assert read_tags(upright)[1] == some_tags(order) | {ORIENTATION: entry(order, 1, kind=SHORT)}
    assert sum(old != new for old, new in zip(data, upright, strict=True)) == 1


def test_entries_are_changed_in_place():
    data = block("<", some_tags("<"))
    changed, end = change_entries(data, {0x0111: (9, 5)})
    assert read_tags(bytes(changed))[1][9] == entry("<", 5, kind=SHORT)
    assert end == 8 + 2 + 5 * 12


@settings(max_examples=300, deadline=None)  # which would be by the clock; `limits` is by the processor
@given(
    places=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 255)), max_size=9),
    keep=st.integers(0, 200),
    order=st.sampled_from("<>"),
)
def test_any_damage_is_told_or_survived(places, keep, order):
    data = bytearray(block(order, some_tags(order)))
    for place, value in places:
        data[place] = value
    data = bytes(data[:keep])
    with limits(seconds=0.5, memory=50_000_000):
        upright = upright_exif(data)
        assert upright is None or len(upright) == len(data)
        try:
            order, tags = read_tags(data)
        except ValueError:
            return
        for tag in tags:
            assert isinstance(numbers(order, tags, tag) if not isinstance(tags[tag][2], dict) else (), tuple)
        again = pack_header(order, 8) + pack_tags(order, tags, 8)
        assert read_tags(again)[1].keys() <= tags.keys()
