"""Photographs: what is read, what survives being written, and that damage is told."""

import io
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from fuzz.limits import limits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter, ImageOps, JpegImagePlugin
from PIL.ExifTags import IFD
from PIL.PngImagePlugin import PngInfo

from ipt.photos import images
from ipt.photos import photo as photos
from ipt.photos.images import FORMATS, ImageError, TooManyPixelsError
from ipt.photos.photo import read_photo, write_photo

MAKER_NOTE, ORIENTATION = 0x927C, 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d" xmp:Rating="5"/></x:xmpmeta>'
MAX_PIXELS = 12_000_000  # of files whose damage makes them claim to be large
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}, "BMP": {}}


@pytest.fixture
def levels():
    """uint8 (30, 50, 4), smooth, so that lossy formats keep it; the last channel is for alpha, with 0 and 255."""
    y, x = np.mgrid[0:30, 0:50]
    return np.stack([x * 5, y * 8, 255 - x * 3 - y, np.clip(x * 8 - 70, 0, 255)], axis=-1).astype(np.uint8)


@pytest.fixture
def wide(levels):
    """The same as uint16, with all 16 bits in use."""
    return levels.astype(np.uint16) * 257 ^ np.random.default_rng(0).integers(0, 64, levels.shape, dtype=np.uint16)


def save(path, picture, kind, **options):
    """`picture`, pixels or of Pillow, as a file; returns its path."""
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path, kind, **options)
    return path


def written(photo, tmp_path, levels=None):
    """The photo read again after it was written; and the file's path."""
    path = tmp_path / "written.any"
    write_photo(photo, photo.levels if levels is None else levels, path)
    return read_photo(path), path


def in_mode(levels, mode):
    """A picture of Pillow in any mode, and what of it must be read: levels, alpha."""
    alpha = levels[..., 3] if mode in ("LA", "RGBA", "P transparent") else None
    if mode in ("LA", "RGBA"):
        gray = levels[..., [0, 3]]
        return (
            Image.fromarray(gray if mode == "LA" else levels),
            levels[..., [0] * 3 if mode == "LA" else [0, 1, 2]],
            alpha,
        )
    picture = Image.fromarray(levels[..., :3])
    if mode == "P transparent":
        picture = picture.quantize(16)
        visible = np.asarray(picture) != 3
        picture.info["transparency"] = 3
        return picture, np.asarray(picture.copy().convert("RGBA"))[..., :3], np.where(visible, 255, 0)
    picture = picture.quantize(16) if mode == "P" else picture.convert(mode)
    return picture, np.asarray(picture.convert("RGB")), None


ALL_MODES = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "P transparent", "RGB", "RGBA")),
    *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
]


@pytest.mark.parametrize(("kind", "mode"), ALL_MODES)
def test_every_kind_and_mode_survives_a_round_trip(tmp_path, levels, kind, mode):
    picture, expected, alpha = in_mode(levels, mode)
    photo = read_photo(save(tmp_path / "a", picture, kind, **LOSSLESS[kind]))
    assert photo.format == kind
    assert photo.levels.dtype == np.uint8
    assert photo.gray == (mode in ("1", "L", "LA"))
    np.testing.assert_array_equal(photo.levels, expected)
    again, path = written(photo, tmp_path)
    np.testing.assert_array_equal(again.levels, expected)
    assert again.gray == photo.gray
    for one in (photo, again):
        assert (one.alpha is None) == (alpha is None)
        if alpha is not None:
            np.testing.assert_array_equal(one.alpha, alpha)
    with Image.open(path) as picture:
        assert picture.mode == ("L" if photo.gray else "RGB") + ("" if alpha is None else "A")
        assert picture.format == kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_survive_a_round_trip(tmp_path, wide, kind, channels):
    path = tmp_path / "a"
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    path.write_bytes(cv2.imencode(f".{kind.lower()}", wide[..., order])[1])
    photo = read_photo(path)
    again, path = written(photo, tmp_path)
    for one in (photo, again):
        assert one.levels.dtype == np.uint16
        assert one.gray == (channels == 1)
        np.testing.assert_array_equal(one.levels, wide[..., [0] * 3 if channels == 1 else [0, 1, 2]])
        assert (one.alpha is not None) == (channels == 4)
        if channels == 4:
            np.testing.assert_array_equal(one.alpha, wide[..., 3])
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(30, 50, -1)
    np.testing.assert_array_equal(stored, wide[..., order])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_with_alpha_survives_a_round_trip(tmp_path, wide, kind):
    """No library at hand writes these, so the first file is ours; tests of `png` and `tiff` have other readers."""
    photo = photos.Photo(wide[..., [0] * 3], wide[..., 3], gray=True, format=kind)
    again, _ = written(photo, tmp_path)
    assert again.gray
    np.testing.assert_array_equal(again.levels, photo.levels)
    np.testing.assert_array_equal(again.alpha, photo.alpha)


def test_bmp_alpha_survives_a_round_trip(tmp_path, levels):
    path = tmp_path / "a.bmp"
    cv2.imwrite(str(path), levels[..., [2, 1, 0, 3]])
    again, _ = written(read_photo(path), tmp_path)
    np.testing.assert_array_equal(again.levels, levels[..., :3])
    np.testing.assert_array_equal(again.alpha, levels[..., 3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_keeps_its_colour(tmp_path, levels, kind):
    levels[..., 3] = 0
    again, _ = written(read_photo(save(tmp_path / "a", levels, kind, **LOSSLESS[kind])), tmp_path)
    np.testing.assert_array_equal(again.levels, levels[..., :3])
    assert not again.alpha.any()


@pytest.mark.parametrize("channels", [[0, 3], [0, 1, 2, 3]])
def test_colours_that_were_multiplied_with_their_alpha_are_divided_by_it(tmp_path, levels, channels):
    levels[..., 3] = np.maximum(levels[..., 3], 100)
    stored = levels[..., channels].copy()
    stored[..., :-1] = np.rint(stored[..., :-1] * (levels[..., 3:] / 255))
    photometric = "rgb" if len(channels) == 4 else "minisblack"
    tifffile.imwrite(tmp_path / "a", stored, photometric=photometric, extrasamples=[1])
    again, _ = written(read_photo(tmp_path / "a"), tmp_path)
    np.testing.assert_array_equal(again.alpha, levels[..., 3])
    difference = again.levels[..., : len(channels) - 1].astype(int) - levels[..., channels[:-1]]
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_becomes_alpha(tmp_path, levels, mode):
    picture = Image.fromarray(levels[..., :3]).convert(mode)
    colour = picture.getpixel((8, 10))
    photo = read_photo(save(tmp_path / "a", picture, "PNG", transparency=colour))
    pixels = np.asarray(picture).reshape(30, 50, -1) * (255 if mode == "1" else 1)
    np.testing.assert_array_equal(photo.alpha == 0, (pixels == colour).all(axis=2))
    assert (photo.alpha == 0).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits_becomes_alpha(tmp_path, wide, channels):
    pixels = wide[..., :channels]
    path = tmp_path / "a"
    path.write_bytes(photos.png.encode(pixels, [(b"tRNS", pixels[10, 8].astype(">u2").tobytes())]))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.levels[..., :channels], pixels)
    np.testing.assert_array_equal(photo.alpha == 0, (pixels == pixels[10, 8]).all(axis=2))
    assert photo.gray == (channels == 1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_written_nearly_as_it_was_with_full_colour(tmp_path, levels, mode):
    picture = Image.fromarray(levels[..., :3]).convert(mode)
    photo = read_photo(save(tmp_path / "a", picture, "JPEG", quality=95))
    again, path = written(photo, tmp_path)
    assert np.abs(again.levels.astype(int) - np.asarray(picture.convert("RGB"))).mean() < 2
    assert again.gray == (mode == "L")
    with Image.open(path) as saved, Image.open(save(tmp_path / "b", picture, "JPEG", quality=95)) as expected:
        assert saved.quantization == expected.quantization
        assert mode == "L" or JpegImagePlugin.get_sampling(saved) == 0


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("channels", [3, 4])
def test_webp_stays_lossy_or_lossless(tmp_path, levels, lossless, channels):
    path = save(
        tmp_path / "a", levels[..., :channels], "WEBP", lossless=lossless, quality=90, exif=b"Exif\0\0" + exif(1)
    )
    again, path = written(read_photo(path), tmp_path)
    assert again.lossless == lossless
    assert (b"VP8L" in path.read_bytes()) == lossless
    assert np.abs(again.levels.astype(int) - levels[..., :3])[levels[..., 3] > 0].mean() < 4
    if channels == 4:
        np.testing.assert_array_equal(again.alpha, levels[..., 3])


def test_gray_is_written_as_the_rounded_mean(tmp_path, levels, wide):
    for pixels in (levels, wide):
        photo = photos.Photo(pixels[..., [0] * 3], None, gray=True, format="PNG")
        again, _ = written(photo, tmp_path, pixels[..., :3])
        expected = np.rint(pixels[..., :3].mean(axis=2))
        np.testing.assert_array_equal(again.levels, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("change", [np.float32, np.uint16, "crop", "gray"])
def test_levels_of_another_type_or_shape_are_refused(tmp_path, levels, change):
    photo = read_photo(save(tmp_path / "a.png", levels, "PNG"))
    other = {"crop": photo.levels[:-1], "gray": photo.levels[..., 0]}.get(change)
    other = photo.levels.astype(change) if other is None else other
    with pytest.raises(ValueError, match=r"expected uint8 \(30, 50, 3\) as they were read, got"):
        write_photo(photo, other, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_the_content_decides_and_not_the_suffix(tmp_path, levels):
    photo = read_photo(save(tmp_path / "a.png", levels[..., :3], "JPEG"))
    assert photo.format == "JPEG"
    write_photo(photo, photo.levels, tmp_path / "deep" / "folder" / "b.tiff")
    assert read_photo(tmp_path / "deep" / "folder" / "b.tiff").format == "JPEG"
    assert {"." + kind.lower() for kind in ("JPEG", "JPG", "PNG", "WEBP", "TIFF", "TIF", "BMP")} == FORMATS.keys()


# What else a file says.


def exif(orientation=6, thumbnail=b""):
    """An EXIF block with a camera, an exposure, a maker note and a place."""
    block = Image.Exif()
    block[ORIENTATION], block[0x0110] = orientation, "Camera 5"
    block.get_ifd(IFD.Exif)[0x829D], block.get_ifd(IFD.Exif)[MAKER_NOTE] = 2.8, b"maker\0note" * 5
    block.get_ifd(IFD.GPSInfo)[1], block.get_ifd(IFD.GPSInfo)[2] = "N", (52.0, 31.0, 12.5)
    data = bytearray(block.tobytes()[6:])  # big-endian, its directory at 8
    (count,) = struct.unpack_from(">H", data, 8)
    struct.pack_into(">L", data, 10 + 12 * count, len(data) if thumbnail else 0)
    return bytes(data) + thumbnail


def stands(path):
    """What Pillow reads of a file's EXIF: orientation, camera, exposure, maker note, place."""
    with Image.open(path) as picture:
        block = picture.getexif()
        inner, place = block.get_ifd(IFD.Exif), block.get_ifd(IFD.GPSInfo)
        values = inner.get(0x829D), inner.get(MAKER_NOTE), place.get(1), place.get(2)
        return block.get(ORIENTATION, 1), block.get(0x0110), *values


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_profile_exif_xmp_and_resolution_survive(tmp_path, levels, kind):
    profile = srgb_profile()  # which holds the second of its making
    options = {"exif": b"Exif\0\0" + exif(), "icc_profile": profile, "dpi": (300, 200)}
    if kind == "PNG":
        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", (XMP % 6).decode())
        options["pnginfo"] = chunks
    elif kind == "TIFF":
        options["exif"] = Image.Exif()
        options["exif"].load(exif())
        options["exif"][700] = XMP % 6
    else:
        options["xmp"] = XMP % 6
    first = save(tmp_path / "a", levels[..., :3], kind, **options)
    photo = read_photo(first)
    again, path = written(photo, tmp_path)
    assert stands(path) == (1, *stands(first)[1:])
    assert stands(path)[1:4] == ("Camera 5", 2.8, b"maker\0note" * 5)
    assert photo.icc == again.icc == profile
    assert b'xmp:Rating="5"' in again.xmp
    assert b'tiff:Orientation="6"' not in path.read_bytes()
    assert again.levels.shape == (50, 30, 3)
    if kind != "WEBP":
        assert again.dpi == pytest.approx((300, 200), abs=0.1)


def test_bmp_resolution_survives(tmp_path, levels):
    again, _ = written(read_photo(save(tmp_path / "a", levels[..., :3], "BMP", dpi=(300, 200))), tmp_path)
    assert again.dpi == pytest.approx((300, 200), abs=0.1)


def test_the_thumbnail_is_dropped_and_all_else_of_exif_keeps_its_place(tmp_path, levels):
    block = exif(thumbnail=struct.pack(">HHHLHHL", 1, 0x0103, 3, 1, 6, 0, 0))
    path = save(tmp_path / "a.jpg", levels[..., :3], "JPEG", exif=b"Exif\0\0" + block)
    with Image.open(path) as picture:
        assert picture.getexif().get_ifd(IFD.IFD1)
    again, path = written(read_photo(path), tmp_path)
    with Image.open(path) as picture:
        assert not picture.getexif().get_ifd(IFD.IFD1)
    assert len(again.exif) == len(block)
    assert sum(old != new for old, new in zip(block, again.exif, strict=True)) <= 4


def test_exif_of_several_jpeg_segments_survives(tmp_path, levels):
    block = exif(1) + bytes(range(256)) * 600
    photo = photos.Photo(levels[..., :3], None, gray=False, format="JPEG", exif=block)
    assert written(photo, tmp_path)[0].exif == block


def test_orientation_only_in_xmp_is_applied_once(tmp_path, levels):
    photo = read_photo(save(tmp_path / "a", levels[..., :3], "WEBP", lossless=True, xmp=XMP % 6))
    assert photo.levels.shape == (50, 30, 3)
    np.testing.assert_array_equal(written(photo, tmp_path)[0].levels, photo.levels)


def test_xmp_of_further_pictures_in_the_file_is_dropped_with_them(tmp_path, levels):
    xmp = b'<rdf:Description xmlns:Container="http://ns.google.com/photos/1.0/container/" hdrgm:Version="1.0"/>'
    assert read_photo(save(tmp_path / "a", levels[..., :3], "JPEG", xmp=xmp)).xmp is None


def test_iptc_and_comment_of_a_jpeg_survive(tmp_path, levels):
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x04\x1c\x02\0\0"
    extra = b"\xff\xed" + struct.pack(">H", 2 + len(iptc)) + iptc
    path = save(tmp_path / "a", levels[..., :3], "JPEG", extra=extra, comment=b"by hand")
    _, path = written(read_photo(path), tmp_path)
    with Image.open(path) as picture:
        assert dict(picture.applist)["APP13"] == iptc
        assert picture.info["comment"] == b"by hand"


def test_colour_and_text_chunks_of_a_png_survive(tmp_path, levels):
    pnginfo = PngInfo()
    pnginfo.add(b"gAMA", struct.pack(">L", 45455))
    pnginfo.add(b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    pnginfo.add_text("Author", "Ada")
    pnginfo.add_itxt("Title", "Straße", "de", "Titel")
    pnginfo.add_text("Raw profile type exif", "\nexif\n 1\n00")
    first = save(tmp_path / "a", levels, "PNG", pnginfo=pnginfo)
    _, path = written(read_photo(first), tmp_path)
    with Image.open(first) as before, Image.open(path) as after:
        assert after.info["gamma"] == before.info["gamma"] == 0.45455
        assert after.info["chromaticity"] == before.info["chromaticity"]
        assert after.text == {"Author": "Ada", "Title": "Straße"}


def test_exif_in_the_text_of_an_older_png_is_applied_and_written_as_exif(tmp_path, levels):
    pnginfo = PngInfo()
    block = b"Exif\0\0" + exif(orientation=6)
    pnginfo.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    photo = read_photo(save(tmp_path / "a", levels, "PNG", pnginfo=pnginfo))
    again, path = written(photo, tmp_path)
    assert photo.levels.shape == again.levels.shape == (50, 30, 3)
    assert stands(path)[:2] == (1, "Camera 5")


@pytest.mark.parametrize("block", [b"II*\0\xff\xff\xff\xff", b"nonsense", b"", b"MM\0*\0\0\0\x08\0\x09"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_left_out(tmp_path, levels, kind, block):
    path = save(tmp_path / "a", levels[..., :3], kind, exif=b"Exif\0\0" + block)
    again, _ = written(read_photo(path), tmp_path)
    assert again.exif is None
    assert again.levels.shape == (30, 50, 3)


def test_a_tiff_whose_compression_is_no_whole_number_is_written_as_deflate(tmp_path, levels):
    path = save(tmp_path / "a", levels[..., :3], "TIFF")
    before, after = struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIf", 259, 11, 1, 1.0)
    assert path.read_bytes().count(before) == 1
    path.write_bytes(path.read_bytes().replace(before, after))
    photo = read_photo(path)  # Pillow takes 1.0 for 1, not packed
    written = photos.encode_photo(photo, photo.levels)
    with Image.open(io.BytesIO(written)) as picture:
        assert picture.tag_v2[259] == 8
        assert np.array_equal(np.asarray(picture), levels[..., :3])


@pytest.mark.parametrize(
    ("compression", "expected"),
    [("raw", 1), ("tiff_lzw", 5), ("tiff_adobe_deflate", 8), ("packbits", 32773), ("jpeg", 8), ("lzma", 8)],
)
def test_lossless_compression_of_tiff_is_kept_and_other_becomes_deflate(tmp_path, levels, compression, expected):
    photo = read_photo(save(tmp_path / "a", levels[..., :3], "TIFF", compression=compression))
    again, path = written(photo, tmp_path)
    with Image.open(path) as picture:
        assert picture.tag_v2[259] == again.compression == expected
    np.testing.assert_array_equal(again.levels, photo.levels)


# Upright.


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_and_said_no_more(tmp_path, levels, kind, turn):
    pixels = levels[..., :3] if kind == "JPEG" else levels
    block = Image.Exif()
    block[ORIENTATION] = turn
    path = save(tmp_path / "a", pixels, kind, exif=block, **LOSSLESS.get(kind, {}))
    with Image.open(io.BytesIO(path.read_bytes())) as picture:  # by name, Pillow 13.0 garbles such a TIFF
        picture.load()  # turns TIFF; without it the next line would turn it twice
        expected = np.asarray(ImageOps.exif_transpose(picture))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.levels, expected[..., :3])
    np.testing.assert_array_equal(np.rint(images.read_image(path) * 255), expected[..., :3])
    again, path = written(photo, tmp_path)
    assert stands(path)[0] == 1
    assert again.levels.shape == photo.levels.shape
    if kind != "JPEG":
        np.testing.assert_array_equal(photo.alpha, expected[..., 3])
        np.testing.assert_array_equal(again.levels, photo.levels)
        np.testing.assert_array_equal(again.alpha, photo.alpha)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_of_16_bits_is_applied(tmp_path, wide, turn):
    photo = photos.Photo(wide[..., :3], wide[..., 3], gray=False, format="PNG")
    block = Image.Exif()
    block[ORIENTATION] = turn
    picture = Image.fromarray(np.arange(1500, dtype=np.int32).reshape(30, 50))
    picture.getexif()[ORIENTATION] = turn
    expected = np.asarray(ImageOps.exif_transpose(picture))
    for kind in ("PNG", "TIFF"):
        path = tmp_path / kind
        write_photo(replace(photo, format=kind, exif=block.tobytes()[6:]), photo.levels, path)
        turned = read_photo(path)
        np.testing.assert_array_equal(turned.levels, wide.reshape(-1, 4)[expected][..., :3])
        np.testing.assert_array_equal(turned.alpha, wide.reshape(-1, 4)[expected][..., 3])


# Four inks.


def ink_profile():
    """An ICC profile of four inks: gray, as light as the mean of what the inks leave; the smallest there can be."""
    left = 1 - np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = (left[:, :3] * left[:, 3:]).mean(axis=1) * 255
    table = np.stack([light, 0 * light + 128, 0 * light + 128], axis=-1).round().astype(np.uint8).tobytes()
    ramp, matrix = bytes(range(256)), struct.pack(">9l", *np.eye(3, dtype=int).ravel() * 65536)
    white = struct.pack(">3l", 63190, 65536, 54061)
    tags = {
        b"A2B0": b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table + ramp * 3,
        b"desc": b"desc" + bytes(4) + struct.pack(">L", 2) + b"x\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none",
        b"wtpt": b"XYZ " + bytes(4) + white,
    }
    index, body = struct.pack(">L", len(tags)), b""
    for name, content in tags.items():
        index += struct.pack(">4sLL", name, 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = b"lcms" + struct.pack(">L", 0x02400000) + b"prtrCMYKLab " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp"
    rest = (head + bytes(28) + white).ljust(124, b"\0") + index + body
    return struct.pack(">L", 4 + len(rest)) + rest


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("profile", ["good", "damaged", None])
def test_cmyk_becomes_rgb_through_its_profile(tmp_path, levels, kind, profile):
    inks = Image.fromarray(levels[..., :3]).convert("CMYK")
    icc = {"good": ink_profile(), "damaged": b"no profile" * 20, None: None}[profile]
    path = save(tmp_path / "a", inks, kind, icc_profile=icc, **({"quality": 95} if kind == "JPEG" else {}))
    photo = read_photo(path)
    assert photo.icc is None
    assert not photo.gray
    if profile == "good":
        assert np.ptp(photo.levels, axis=2).max() <= 2  # this profile is gray
        gray = np.asarray(Image.fromarray(levels[..., :3]).filter(ImageFilter.BoxBlur(2))).mean(axis=2)
        assert np.corrcoef(photo.levels[..., 0].ravel(), gray.ravel())[0, 1] > 0.9
    else:
        assert np.abs(photo.levels.astype(int) - levels[..., :3]).mean() < 3
    again, path = written(photo, tmp_path)
    with Image.open(path) as picture:
        assert (picture.mode, picture.info.get("icc_profile")) == ("RGB", None)
    assert np.abs(again.levels.astype(int) - photo.levels).mean() < 2


# What is refused.


def frames(levels, kind):
    pictures = [Image.fromarray(levels[..., :3]), Image.fromarray(255 - levels[..., :3])]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_animations_and_several_pages_are_refused(tmp_path, levels, kind):
    path = tmp_path / "a"
    path.write_bytes(frames(levels, kind))
    with pytest.raises(ImageError, match="several pictures or pages; expected one"):
        read_photo(path)


def test_of_a_phones_jpeg_with_further_pictures_the_first_is_read(tmp_path, levels):
    path = tmp_path / "a.jpg"
    path.write_bytes(frames(levels, "MPO"))
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("MPO", 2)
    photo = read_photo(path)
    assert photo.format == "JPEG"
    assert np.abs(photo.levels.astype(int) - levels[..., :3]).mean() < 4
    _, path = written(photo, tmp_path)
    with Image.open(path) as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize("kind", ["GIF", "PPM", "JPEG2000", "HEIC", "text"])
def test_other_kinds_of_files_are_refused_by_naming_what_is_read(tmp_path, levels, kind):
    path = tmp_path / "a.jpg"
    other = {"HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "text": b"hello"}.get(kind)
    if other:
        path.write_bytes(other)
    else:
        save(path, levels[..., :3], kind)
    with pytest.raises(ImageError, match=r"a\.jpg: .*not one of JPEG, PNG, WEBP, TIFF, BMP") as caught:
        read_photo(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("tag", [(254, 1), (50706, b"\1\4\0\0")])
def test_camera_raw_files_are_refused(tmp_path, levels, tag):
    path = save(tmp_path / "a.dng", levels[..., :3], "TIFF", tiffinfo=dict([tag]))
    with pytest.raises(ImageError, match="raw file"):
        read_photo(path)


@pytest.mark.parametrize("mode", ["LAB", "F", "I", "NaN"])
def test_pixels_that_are_no_photograph_are_refused(tmp_path, levels, mode):
    gray = levels[..., 0].astype(np.float32)
    pictures = {
        "LAB": Image.frombytes("LAB", (50, 30), levels[..., :3].tobytes()),
        "F": Image.fromarray(gray),
        "I": Image.fromarray(gray.astype(np.int32)),
        "NaN": Image.fromarray(np.where(gray > 9, np.nan, gray)),
    }
    path = save(tmp_path / "a.tif", pictures[mode], "TIFF")
    with pytest.raises(ImageError, match="LAB pixels are not supported" if mode == "LAB" else "no fixed range"):
        read_photo(path)


BAD = {
    "missing": "No such file",
    "folder": "Is a directory",
    "empty": "the file is empty",
    "cut in the head": "Truncated",
    "half of JPEG": "truncated",
    "half of PNG": "",
    "half of WEBP": "",
    "half of TIFF": "",
    "half of BMP": "truncated",
    "half of 16 bits": "",
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_files_are_told_by_name_and_reason(tmp_path, wide, bad):
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    if bad == "folder":
        path.mkdir()
    elif bad == "half of 16 bits":
        write_photo(photos.Photo(wide[..., :3], None, gray=False, format="TIFF"), wide[..., :3], path)
    elif bad != "missing":
        save(path, noise, bad.removeprefix("half of ") if "half" in bad else "JPEG")
    if path.is_file():
        whole = path.read_bytes()
        path.write_bytes(whole[: {"empty": 0, "cut in the head": 15}.get(bad, len(whole) // 2)])
    with pytest.raises(ImageError, match=f"{path}: cannot be read as an image: .*{BAD[bad]}"):
        read_photo(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, levels):
    path = save(tmp_path / "a.png", levels, "PNG")
    monkeypatch.setattr(images, "MAX_PIXELS", 30 * 50 - 1)
    with pytest.raises(ImageError, match=r"50 x 30 pixels; the limit is 1499"):
        read_photo(path)


# Atomic, lean, and never another error.


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, levels, error, old):
    photo = photos.Photo(levels[..., :3], None, gray=False, format="PNG")
    target = tmp_path / "a.png"
    if old:
        target.write_bytes(old)

    def write_half(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(error):
        write_photo(photo, photo.levels, target)
    assert [path.name for path in tmp_path.iterdir()] == (["a.png"] if old else [])
    assert not old or target.read_bytes() == old


@pytest.mark.parametrize("turn", [1, 6])
def test_reading_takes_little_more_memory_than_the_levels(tmp_path, turn):
    """Beside Pillow's own picture, which is not counted here."""
    block = Image.Exif()
    block[ORIENTATION] = turn
    path = save(tmp_path / "a.jpg", Image.linear_gradient("L").resize((3000, 2000)).convert("RGB"), "JPEG", exif=block)
    read_photo(path)
    tracemalloc.start()
    photo = read_photo(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert photo.levels.flags.c_contiguous
    assert photo.levels.nbytes == 18_000_000
    assert peak < 1.4 * photo.levels.nbytes


def sample_files():
    """Small files of all kinds, with all that is parsed beside the pixels."""
    levels = np.arange(24 * 24 * 4).reshape(24, 24, 4).astype(np.uint8)
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        texts = {} if kind == "BMP" else {"exif": b"Exif\0\0" + exif(thumbnail=bytes(6)), "icc_profile": b"p" * 99}
        Image.fromarray(levels[..., :3]).save(buffer, kind, dpi=(72, 72), **texts)
        found.append(buffer.getvalue())
    for channels in (2, 4):
        wide = levels[..., :channels].astype(np.uint16) * 257
        for compression in (1, 5, 8):
            found.append(photos.tiff.encode(wide, "<", {}, compression))
        found.append(photos.png.encode(wide, [(b"eXIf", exif())]))
    return found


def read_or_refuse(folder, data):
    """Either an ImageError, or a photo that can be written and read again."""
    path = folder / "a.img"
    path.write_bytes(data)
    try:
        with limits():
            photo = read_photo(path, MAX_PIXELS)
    except ImageError:
        return
    assert photo.levels.dtype in (np.uint8, np.uint16)
    assert photo.levels.shape[2] == 3
    write_photo(photo, photo.levels, path)
    assert read_photo(path).levels.shape == photo.levels.shape


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


@settings(max_examples=400, deadline=None)  # which would be by the clock; `limits` is by the processor
@given(
    data=st.sampled_from(sample_files()),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    near=st.sampled_from([100, 500, 10**6]),
    keep=st.just(1.0) | st.floats(0, 1),
)
def test_any_damage_gives_a_photo_or_an_image_error(folder, data, places, near, keep):
    damaged = bytearray(data)
    for place, value in places:
        damaged[int(place * min(len(data), near))] = value
    read_or_refuse(folder, bytes(damaged[: int(len(data) * keep)]))


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8L", b"II*\0", b"MM\0*", b"BM"]
    ),
    rest=st.binary(max_size=300),
)
def test_random_bytes_are_refused_or_read(folder, start, rest):
    read_or_refuse(folder, start + rest)


def test_bytes_are_read_and_written_as_files_are(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)).save(path)
    of_file, of_bytes = read_photo(path), read_photo(path.read_bytes())
    assert np.array_equal(of_file.levels, of_bytes.levels)
    assert np.array_equal(of_file.alpha, of_bytes.alpha)
    write_photo(of_file, of_file.levels, path)
    assert photos.encode_photo(of_bytes, of_bytes.levels) == path.read_bytes()
    with pytest.raises(ImageError, match=r"^image: cannot be read"):
        read_photo(b"no picture")


def test_more_pixels_than_accepted_are_refused_before_they_are_decoded(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "PNG")
    assert read_photo(buffer.getvalue(), max_pixels=600).levels.shape == (20, 30, 3)
    with pytest.raises(TooManyPixelsError, match="30 x 20 pixels; the limit is 599"):
        read_photo(buffer.getvalue()[:60], max_pixels=599)  # its pixels are missing
    huge = bytearray(buffer.getvalue())
    huge[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    with pytest.raises(TooManyPixelsError):
        read_photo(bytes(huge))
