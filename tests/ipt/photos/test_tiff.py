"""TIFF: 16-bit pixels of all layouts, checked with files and readers that are not ours."""

import io
import itertools

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from ipt.photos import tiff
from ipt.photos.tags import SHORT, entry, numbers, read_tags

OPTIONS = {1: "minisblack", 2: "minisblack", 3: "rgb", 4: "rgb"}


@pytest.fixture
def pixels():
    """uint16 (35, 50, 4), smooth but for the last bits."""
    y, x = np.mgrid[0:35, 0:50]
    smooth = np.stack([x * 1300, y * 1800, 65535 - x * 600 - y, np.minimum(x * 1900, 65535)], axis=-1)
    return smooth.astype(np.uint16) ^ np.random.default_rng(0).integers(0, 8, smooth.shape, dtype=np.uint16)


def written(pixels, order="<", planes=False, **options):
    """The bytes of a TIFF that tifffile wrote."""
    channels, buffer = pixels.shape[2], io.BytesIO()
    stored = pixels[..., 0] if channels == 1 else pixels.transpose(2, 0, 1) if planes else pixels
    options = {"photometric": OPTIONS[channels], "extrasamples": [2] if channels in (2, 4) else None} | options
    if channels > 1:
        options["planarconfig"] = "separate" if planes else "contig"
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=options.pop("bigtiff", False)) as writer:
        writer.write(np.ascontiguousarray(stored), **options)
    return buffer.getvalue()


def read_levels(data):
    """The pixels, for a caller who has the size from the file's first entries too."""
    order, tags = read_tags(data)
    return tiff.read_levels(data, numbers(order, tags, tiff.WIDTH) + numbers(order, tags, tiff.HEIGHT))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("planes", [False, True])
def test_16_bits_of_every_layout_are_read_exactly(pixels, channels, tile, planes):
    pixels = pixels[..., :channels]
    packings = ({}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True})
    for order, packing in itertools.product("<>", packings):
        options = packing | ({"tile": tile} if tile else {"rowsperstrip": 8})
        np.testing.assert_array_equal(read_levels(written(pixels, order, planes, **options)), pixels)
    big = written(pixels, bigtiff=True, planes=planes)
    np.testing.assert_array_equal(read_levels(big), pixels)


@pytest.mark.parametrize("compression", [tiff.NONE, tiff.LZW, tiff.PACKBITS, tiff.DEFLATE, tiff.OLD_DEFLATE])
def test_files_of_opencv_are_read_exactly(pixels, compression):
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_PREDICTOR, 2]
    data = cv2.imencode(".tif", pixels[..., [2, 1, 0, 3]], options)[1].tobytes()
    assert tiff.numbers(*read_tags(data), tiff.COMPRESSION) == (compression,)
    np.testing.assert_array_equal(read_levels(data), pixels)


def test_gray_from_white_to_black_is_turned_round(pixels):
    for channels, order in itertools.product((1, 2), "<>"):
        pixels = pixels[..., :channels]
        stored = pixels.copy()
        stored[..., 0] = 65535 - stored[..., 0]
        data = written(stored, order, photometric="miniswhite")
        np.testing.assert_array_equal(read_levels(data), pixels)
        with Image.open(io.BytesIO(tiff.for_pillow(data))) as picture:
            assert picture.size == (50, 35)


def test_alpha_that_the_colours_were_multiplied_with_is_divided_out(pixels):
    alpha = pixels[..., 3:].astype(np.int64)
    stored = np.concatenate([(pixels[..., :3] * alpha + 32767) // 65535, alpha], axis=2).astype(np.uint16)
    levels = read_levels(written(stored, extrasamples=[1]))
    np.testing.assert_array_equal(levels[..., 3:], alpha)
    solid = alpha[..., 0] > 20_000
    assert np.abs(levels[..., :3].astype(int) - pixels[..., :3])[solid].max() <= 2
    assert not levels[..., :3][alpha[..., 0] == 0].any()


def test_a_fourth_channel_that_is_not_alpha_is_left_out(pixels):
    np.testing.assert_array_equal(read_levels(written(pixels, extrasamples=[0])), pixels[..., :3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_others_read_what_is_written(pixels, channels, dtype, order):
    pixels = (pixels[..., :channels] >> (0 if dtype == np.uint16 else 8)).astype(dtype)
    for compression in (tiff.NONE, tiff.LZW, tiff.DEFLATE, tiff.PACKBITS):
        data = tiff.encode(pixels, order, {}, compression)
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            assert (page.compression, page.samplesperpixel, page.bitspersample) == (
                compression,
                channels,
                pixels.itemsize * 8,
            )
            assert [int(extra) for extra in page.extrasamples] == ([2] if channels in (2, 4) else [])
            if compression in (tiff.NONE, tiff.DEFLATE):  # tifffile has no others here
                np.testing.assert_array_equal(page.asarray().reshape(pixels.shape), pixels)
        if dtype == np.uint16 or channels == 3:
            stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            bgr = [0] if channels == 1 else [2, 1, 0, 3][:channels]
            assert channels == 2 or np.array_equal(stored.reshape(35, 50, -1), pixels[..., bgr])
        if dtype == np.uint8:
            with Image.open(io.BytesIO(data)) as picture:
                np.testing.assert_array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


def test_many_strips_make_one_picture(pixels, monkeypatch):
    monkeypatch.setattr(tiff, "_STRIP_BYTES", 1000)
    for compression in (tiff.NONE, tiff.LZW, tiff.DEFLATE):
        data = tiff.encode(pixels, "<", {}, compression)
        assert len(tiff.numbers(*read_tags(data), tiff.STRIP_OFFSETS)) == 18
        np.testing.assert_array_equal(read_levels(data), pixels)


def test_tags_are_written_beside_those_of_the_layout(pixels):
    tags = {272: (2, 9, b"Camera 5\0"), 274: entry("<", 1, kind=SHORT), tiff.WIDTH: entry("<", 7)}
    written = read_tags(tiff.encode(pixels, "<", tags, tiff.NONE))[1]
    assert written[272] == (2, 9, b"Camera 5\0")
    assert tiff.numbers("<", written, tiff.WIDTH) == (50,)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16, np.uint32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_without_a_range_are_refused(pixels, dtype, channels):
    data = written((pixels[..., :channels] // 2).astype(dtype))
    with pytest.raises(ValueError, match="no fixed range; save it with 8 or 16 bits"):
        tiff.for_pillow(data)


def test_planes_that_pillow_mixes_up_are_refused(pixels):
    with pytest.raises(ValueError, match="separate planes"):
        tiff.for_pillow(written(pixels[..., :2].astype(np.uint8), planes=True))


def test_other_16_bit_files_are_refused(pixels):
    inks = written(pixels, photometric="separated", extrasamples=None)
    with pytest.raises(ValueError, match="neither gray nor RGB"):
        read_levels(inks)
    order, tags = read_tags(written(pixels))
    odd = tiff._with_directory(written(pixels), order, tags | {tiff.COMPRESSION: entry(order, 50000, kind=SHORT)})
    with pytest.raises(ValueError, match="compression 50000; save it with"):
        read_levels(bytes(odd))
    with pytest.raises(ValueError, match="the file is truncated"):
        read_levels(bytes(tiff._with_directory(b"II*\0" + bytes(4), order, tags)))


def test_damage_is_told_once_and_not_printed(pixels, capfd):
    data = bytearray(tiff.encode(pixels, "<", {}, tiff.LZW))
    data[8:200] = b"\xff" * 192
    with pytest.raises(ValueError, match="damaged"):
        read_levels(bytes(data))
    assert capfd.readouterr().err == ""


def test_the_size_that_was_checked_is_the_size_that_is_made(pixels):
    """Two widths, the first of a kind that Pillow reads and we do not: the limit saw 1 x 35."""
    data = written(pixels[..., :3])
    with pytest.raises(ValueError, match="it says that it is 50 x 35 pixels and 1 x 35 as well"):
        tiff.read_levels(data, (1, 35))
    np.testing.assert_array_equal(tiff.read_levels(data, (35, 50)), pixels[..., :3])  # as turned by its tag
