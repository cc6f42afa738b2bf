"""PNG: others read what is written, and chunks are found."""

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ipt.photos import png


def png_primaries(red):
    return struct.pack(">8L", 31270, 32900, red, 33000, 30000, 60000, 15000, 6000)


def read(data):
    """uint8 or uint16 (H, W, C) as libraries that are not ours read it."""
    bits, kind = data[24:26]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    if bits == 8:
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
            return np.asarray(picture).reshape(picture.height, picture.width, channels)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return stored.reshape(*stored.shape[:2], -1)[..., {1: [0], 2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    rough=st.booleans(),
    seed=st.integers(0, 9),
)
def test_others_read_what_is_written(height, width, channels, dtype, rough, seed):
    pixels = np.random.default_rng(seed).integers(
        0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True
    )
    if not rough:
        pixels = np.cumsum(pixels // 50, axis=1, dtype=dtype)
    np.testing.assert_array_equal(read(png.encode(pixels, [])), pixels)


def test_bands_make_one_picture(monkeypatch):
    y, x = np.mgrid[0:64, 0:48]
    pixels = np.stack([x * y, x + y, np.abs(x - y)], axis=-1).astype(np.uint16)
    whole = png.encode(pixels, [])
    for bytes_in_band in (1, 48 * 6 * 5):
        monkeypatch.setattr(png, "_BAND_BYTES", bytes_in_band)
        np.testing.assert_array_equal(read(png.encode(pixels, [])), read(whole))


def test_every_filter_is_used_and_photographs_are_smaller_than_pillows():
    noise = np.random.default_rng(0).normal(0, 2, (200, 300, 3))
    y, x = np.mgrid[0:200, 0:300]
    smooth = np.stack([128 + 90 * np.sin(x / 40), 128 + 90 * np.sin(y / 30), 128 + 60 * np.sin((x + y) / 50)], axis=-1)
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert len(png.encode(pixels, [])) < len(buffer.getvalue())
    patterns = np.stack(np.broadcast_arrays(x[:8] * 37, y[:8] * 91, (x * y)[:8]), axis=-1).astype(np.uint8)
    assert len(set(png._filter(np.concatenate([patterns, pixels[:80, :300]]), 0, 88)[:, 0])) > 1


def test_filters_are_those_of_the_standard():
    """By the formulas of the PNG specification, pixel by pixel."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 7, 3), np.uint8) // np.uint8(3)
    for row, filtered in enumerate(png._filter(pixels, 0, 40)):
        kind, rest = filtered[0], filtered[1:].astype(int)
        for place, value in enumerate(rest):
            line = pixels.reshape(40, -1).astype(int)
            left = line[row, place - 3] if place >= 3 else 0
            above = line[row - 1, place] if row else 0
            corner = line[row - 1, place - 3] if row and place >= 3 else 0
            guess = left + above - corner
            paeth = min((left, above, corner), key=lambda number: abs(guess - number))
            assert (value + (left, above, (left + above) // 2, paeth)[kind - 1]) % 256 == line[row, place]


def test_chunks_are_written_before_the_pixels_and_found_again():
    chunks = [(b"gAMA", struct.pack(">L", 45455)), (b"tEXt", b"Author\0Ada")]
    data = png.encode(np.zeros((3, 4, 1), np.uint8), chunks)
    found = list(png.read_chunks(data))
    assert [kind for kind, _ in found] == [b"IHDR", b"gAMA", b"tEXt"]
    assert found[1:] == chunks
    assert data.index(b"tEXt") < data.index(b"IDAT")
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.text == {"Author": "Ada"}
    for end in itertools.chain(range(0, 40), range(len(data) - 30, len(data))):
        assert len(list(png.read_chunks(data[:end]))) <= 3


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_head_says_what_is_in_it(channels):
    data = png.encode(np.zeros((5, 9, channels), np.uint16), [])
    assert struct.unpack_from(">LLBB", data, 16) == (9, 5, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels])


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ({}, None),
        ({b"gAMA": struct.pack(">L", 45455), b"cHRM": png_primaries(64000)}, None),
        ({b"gAMA": struct.pack(">L", 45455), b"cHRM": png_primaries(68000)}, "cHRM"),
        ({b"gAMA": struct.pack(">L", 100000)}, "gAMA"),
        ({b"gAMA": struct.pack(">L", 100000), b"sRGB": b"\0"}, None),
        ({b"cICP": bytes([1, 13, 0, 1]), b"gAMA": struct.pack(">L", 100000)}, None),
        ({b"cICP": bytes([9, 16, 0, 1]), b"sRGB": b"\0"}, "cICP"),
        ({b"gAMA": b"", b"cHRM": b"damaged"}, None),
    ],
)
def test_colours_that_are_not_those_of_srgb_are_told(chunks, told):
    assert png.other_colours(chunks.items()) == told
