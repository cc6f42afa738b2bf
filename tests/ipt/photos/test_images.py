"""Reading image files: what each kind becomes, and that damage is told."""

import io
import zlib
from unittest import mock

import cv2
import numpy as np
import pytest
from fuzz.limits import limits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ipt.photos import images
from ipt.photos.images import ImageError, read_image, read_thumbnail


@pytest.fixture
def levels():
    """uint8 (30, 50, 3), smooth, so that lossy formats keep it."""
    y, x = np.mgrid[0:30, 0:50]
    return np.stack([x * 5, y * 8, 255 - x * 3 - y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_lossless_files_are_read_exactly(tmp_path, levels, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(levels).save(path)
    image = read_image(path)
    assert image.dtype == np.float32
    assert image.shape == (30, 50, 3)
    np.testing.assert_array_equal(np.rint(image * 255), levels)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_files_are_read_nearly(tmp_path, levels, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(levels).save(path, quality=95)
    assert np.abs(read_image(path) * 255 - levels).mean() < 3


def test_gray_is_repeated(tmp_path, levels):
    path = tmp_path / "a.png"
    Image.fromarray(levels[..., 0]).save(path)
    np.testing.assert_array_equal(np.rint(read_image(path) * 255), np.repeat(levels[..., :1], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_keep_their_precision(tmp_path, levels, suffix, channels):
    wide = levels.astype(np.uint16) * 257 - (levels > 0)
    wide = np.concatenate([wide, np.full((30, 50, 1), 1000, np.uint16)], axis=-1)[..., :channels]
    path = tmp_path / f"a.{suffix}"
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    assert cv2.imwrite(str(path), wide[..., order])
    expected = wide[..., :3] if channels > 1 else np.repeat(wide, 3, axis=2)
    np.testing.assert_array_equal(np.rint(read_image(path) * 65535), expected)


def test_alpha_is_dropped_over_its_colour(tmp_path, levels):
    alpha = np.zeros((30, 50, 1), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(np.concatenate([levels, alpha], axis=-1)).save(path)
    np.testing.assert_array_equal(np.rint(read_image(path) * 255), levels)


def test_transparent_palette_keeps_its_colours(tmp_path, levels):
    path = tmp_path / "a.png"
    picture = Image.fromarray(levels).quantize(16)
    picture.save(path, transparency=0)
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(np.rint(read_image(path) * 255), expected)


def test_cmyk_and_bilevel_become_rgb(tmp_path, levels):
    Image.fromarray(levels).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg") * 255 - levels).mean() < 3
    Image.fromarray(levels).convert("1").save(tmp_path / "b.png")
    assert set(np.unique(read_image(tmp_path / "b.png"))) <= {0.0, 1.0}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, levels, orientation):
    picture = Image.fromarray(levels)
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    picture.save(path, exif=exif)
    with Image.open(path) as saved:
        expected = np.asarray(ImageOps.exif_transpose(saved))
    image = read_image(path)
    np.testing.assert_array_equal(np.rint(image * 255), expected)
    assert read_thumbnail(path, 8)[1] == image.shape[:2]


def test_thumbnail_of_a_large_jpeg_is_small_and_tells_the_full_size(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (1600, 800), (200, 100, 50)).save(path)
    thumbnail, size = read_thumbnail(path, 64)
    assert size == (800, 1600)
    assert 64 <= min(thumbnail.shape[:2]) < 800
    assert np.abs(thumbnail * 255 - (200, 100, 50)).max() < 3


def _damaged(kind, tmp_path, levels):
    path = tmp_path / f"{kind}.jpg"
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
        return path
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        buffer, "PNG" if kind == "truncated png" else "JPEG"
    )
    whole = buffer.getvalue()
    data = {"empty": b"", "text": b"hello", "cut in the head": whole[:15]}
    path.write_bytes(data.get(kind, whole[: len(whole) // 2]))
    return path


@pytest.mark.parametrize(
    "kind",
    ["missing", "folder", "empty", "text", "cut in the head", "truncated jpg", "truncated png"],
)
def test_unreadable_files_are_told_by_name(tmp_path, levels, kind):
    path = _damaged(kind, tmp_path, levels)
    for read in (read_image, lambda p: read_thumbnail(p, 64)):
        with pytest.raises(ImageError, match="cannot be read as an image") as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(tmp_path, levels, mode):
    path = tmp_path / "a.tiff"
    Image.fromarray(levels[..., 0]).convert(mode).save(path)
    with pytest.raises(ImageError, match="no fixed range"):
        read_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, levels):
    path = tmp_path / "a.png"
    Image.fromarray(levels).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 30 * 50)
    read_image(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 30 * 50 - 1)
    with pytest.raises(ImageError, match=r"50 x 30 pixels; the limit is 1499"):
        read_image(path)


def test_a_file_that_claims_more_than_pillow_allows_is_refused(tmp_path, levels):
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="pixels"):
        read_image(path)


@settings(max_examples=60, deadline=None)  # which would be by the clock; `limits` is by the processor
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP"]),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1),
)
def test_any_damage_gives_an_image_or_an_image_error(tmp_path_factory, kind, places, keep):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(24 * 24 * 3, dtype=np.uint8).reshape(24, 24, 3)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for place, value in places:
        data[int(place * min(len(data), 200))] = value
    path = tmp_path_factory.mktemp("damage") / "a.img"
    path.write_bytes(data[: int(len(data) * keep)])
    try:
        with limits(), mock.patch.object(images, "MAX_PIXELS", 12_000_000):
            image = read_image(path)
    except ImageError:
        return
    assert image.dtype == np.float32
    assert image.shape[2] == 3
    assert 0 <= image.min() <= image.max() <= 1
