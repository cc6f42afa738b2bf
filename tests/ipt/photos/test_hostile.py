"""Files made to do harm: they cost a moment and a line, whatever they are called."""

import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from fuzz.seeds import two_widths
from PIL import Image

from benchmarks.hostile_bodies import chunk, many_scans
from ipt.photos import images
from ipt.photos.images import ImageError, read_image, read_thumbnail
from ipt.photos.photo import encode_photo, read_photo

READERS = (read_photo, read_image, lambda path: read_thumbnail(path, 8))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touched) (w) file closefile\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("read", READERS)
def test_nothing_but_the_kinds_that_are_promised_is_tried(tmp_path, read, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(EPS)  # for which Pillow would call Ghostscript

    def started(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr("subprocess.Popen", started)
    with pytest.raises(ImageError, match=r"photo\.jpg: .*not one of JPEG, PNG, WEBP, TIFF, BMP, AVIF"):
        read(tmp_path / "photo.jpg")


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "photo.jpg")
    told = []

    def reading():
        with pytest.raises(ImageError) as caught:
            read(tmp_path / "photo.jpg")
        told.append(str(caught.value))

    thread = threading.Thread(target=reading, daemon=True)
    thread.start()
    thread.join(5)
    assert "no file, but a pipe, socket or device" in told[0]


def test_a_png_that_begins_with_another_chunk_is_refused(tmp_path):
    """Its bits are read from a fixed place: a 16-bit one would have lost eight of them in silence."""
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:8] + chunk(b"tEXt", b"Comment\0hello") + data[8:])
    for read in READERS:
        with pytest.raises(ImageError, match="its first chunk is not IHDR"):
            read(tmp_path / "a.png")


def png(head, *chunks):
    """A PNG of 4 x 4 pixels of bits, kind and three zeros as `head` says, all of them 0."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LL", 4, 4) + head) + b"".join((*chunks, pixels))


@pytest.mark.parametrize("read", READERS)
def test_a_palette_without_colours_is_refused_or_read(tmp_path, read):
    """Pillow asserts that there is one."""
    (tmp_path / "a.png").write_bytes(png(bytes([8, 3, 0, 0, 0])) + chunk(b"IEND", b""))
    with pytest.raises(ImageError):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("between", [chunk(b"IEND", b""), chunk(b"\0\0\0\0", b"")])
def test_chunks_that_nobody_reads_are_not_written(between):
    """Behind the end and behind damage; before the pixels a short pHYs would make readers refuse the file."""
    data = png(bytes([8, 2, 0, 0, 0]), chunk(b"tEXt", b"Author\0Ada"))
    photo = read_photo(data + between + chunk(b"pHYs", b"") + chunk(b"IEND", b""))
    assert photo.pieces == ((b"tEXt", b"Author\0Ada"),)
    assert read_photo(encode_photo(photo, photo.levels)).pieces == photo.pieces


@pytest.mark.parametrize("read", READERS)
def test_a_jpeg_of_many_scans_is_refused(tmp_path, read):
    """Of 12 megapixels and 60 kB, 500 took 4 s; of 1 MB it would have been minutes."""
    (tmp_path / "a.jpg").write_bytes(many_scans(1000, 1000, 30_000))
    started = time.process_time()
    with pytest.raises(ImageError, match="more than 100 scans"):
        read(tmp_path / "a.jpg")
    assert time.process_time() - started < 1
    (tmp_path / "a.jpg").write_bytes(many_scans(40, 40, 100) + b"\xff\xda" * 1000)  # as a phone's film behind a picture
    read(tmp_path / "a.jpg")


def bmp(width, height, kind, lines):
    """A BMP with run lengths of `kind` (1: 8 bits, 2: 4 bits), of 16 gray levels."""
    bits, colours = {1: 8, 2: 4}[kind], np.repeat(np.arange(16, dtype=np.uint8) * 17, 4).tobytes()
    head = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, kind, len(lines), 0, 0, 16, 0)
    start = 14 + len(head) + len(colours)
    return b"BM" + struct.pack("<LHHL", start + len(lines), 0, 0, start) + head + colours + lines


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", [1, 2])
def test_a_large_bmp_with_run_lengths_is_refused(tmp_path, read, kind):
    """Of 600 bytes, 120 megapixels of lines of one pixel took 15 s."""
    (tmp_path / "a.bmp").write_bytes(bmp(1_000_000, 120, kind, b"\1\0\0\0" * 120))
    started = time.process_time()
    with pytest.raises(ImageError, match=r"a\.bmp: .*a BMP with run lengths of more than 1000000 pixels; save it"):
        read(tmp_path / "a.bmp")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(("kind", "run"), [(1, b"\x04\x0f"), (2, b"\x04\xff")])
def test_a_small_bmp_with_run_lengths_is_read(kind, run):
    levels = read_photo(bmp(4, 2, kind, run + b"\0\0" + b"\1\0\0\0" + b"\0\1")).levels
    assert levels[1].tolist() == [[255] * 3] * 4  # the first line in the file is the lowest
    assert levels[0].tolist() == [[0] * 3] * 4


@pytest.mark.slow  # to write the pages takes seconds
def test_pages_are_not_counted(tmp_path):
    """3,000 pages of one pixel: counted one from another they took 11 s."""
    page = Image.new("RGB", (1, 1))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page] * 3000)
    started = time.process_time()
    with pytest.raises(ImageError, match="several pictures or pages"):
        read_photo(tmp_path / "a.tif")
    assert time.process_time() - started < 1


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("ours", "pillows", "reason"),
    [
        (20_000, 1, "it says that it is 20000 x 10 pixels and 1 x 10 as well"),
        (1, 20_000, "20000 x 10 pixels; the limit is 1000 in all"),
    ],
)
def test_a_tiff_with_two_widths_makes_no_more_than_the_limit_allows(tmp_path, monkeypatch, read, ours, pillows, reason):
    """Pillow takes one width, our own reader of 16 bits the other; neither may pass the limit."""
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    (tmp_path / "a.tif").write_bytes(two_widths(ours, pillows))
    with pytest.raises(ImageError, match=reason):
        read(tmp_path / "a.tif")
