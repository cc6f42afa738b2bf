"""Reading image files of common kinds into the image contract: float32 (H, W, 3) RGB in [0, 1]."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ipt.photos import jpeg, tiff
from ipt.photos.tags import ORIENTATION

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

# Of the kinds that are read and written, by suffix.
FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
# Read, not written: what phones and browsers save; the restored file is a JPEG or PNG.
READ_ONLY = {".heic": "HEIF", ".heif": "HEIF", ".avif": "AVIF"}
_HEIC = "HEIF"  # unknown to Pillow unless it was taught
# Of Pillow's kinds those that are tried: it knows forty more, some by calling other programs.
_READ = tuple(kind for kind in dict.fromkeys((FORMATS | READ_ONLY).values()) if kind != _HEIC)
MAX_PIXELS = 120_000_000  # above the largest cameras; a small file can claim far more and fill the memory
MOST_RUN_LENGTH_PIXELS = 1_000_000  # of a BMP with run lengths, which Pillow fills pixel by pixel in Python
_GRAY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_WIDE_MODES = {"I": "32-bit integer", "F": "floating point"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_SIDEWAYS = (5, 6, 7, 8)
_BAND_ROWS = 256
# What Pillow's decoders raise on damaged files, beside OSError for most of them.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
    cv2.error,
    Image.DecompressionBombError,
)


Empty = Callable[[tuple[int, ...], type[np.generic]], np.ndarray]  # makes an array of a shape and dtype for pixels


class ImageError(ValueError):
    """A file that cannot be read as a picture; the message names the file and the reason."""


class TooManyPixelsError(ImageError):
    """A picture that says to be larger than what is accepted; none of its pixels was decoded."""


def read_image(source: str | Path | bytes) -> np.ndarray:
    """Read an image file, or its bytes, as float32 (H, W, 3) RGB in [0, 1], the way up its EXIF orientation says.

    8 and 16 bits per channel keep their precision; gray is repeated in three channels; palette and
    CMYK are converted; alpha is dropped and the colour stored under it stays; of several frames or
    pages the first is read. Raises ImageError for a missing, truncated, damaged or huge (over
    MAX_PIXELS) file and for pixel types without a fixed range (32-bit, floating point).
    """
    return to_image(read_levels(source))


def read_levels(source: str | Path | bytes, empty: Empty = np.empty) -> np.ndarray:
    """The pixels of a file as `decode` returns them, which `to_image` makes what `read_image` returns; its errors."""
    with open_picture(source) as (picture, data):
        return decode(picture, data, empty)


def read_thumbnail(source: str | Path | bytes, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a file as `read_image`, but a JPEG at a fraction of its size, for a quick look.

    Returns the picture, float32 (h, w, 3) RGB in [0, 1] with both sides at least min(side, full
    side), and the (height, width) in pixels that `read_image` would return. Raises ImageError.
    """
    levels, size = read_small_levels(source, side)
    return to_image(levels), size


def read_small_levels(
    source: str | Path | bytes, side: int, empty: Empty = np.empty
) -> tuple[np.ndarray, tuple[int, int]]:
    """`read_thumbnail` with pixels as `read_levels` returns them."""
    with open_picture(source) as (picture, data):
        width, height = picture.size
        picture.draft("RGB", (side, side))
        smaller = picture.size != (width, height)
        levels = decode(picture, data, empty)
        if not smaller:
            return levels, levels.shape[:2]
        return levels, (width, height) if orientation(picture) in _SIDEWAYS else (height, width)


def to_image(levels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 (H, W, C), C as in `decode`, to float32 (H, W, 3) in [0, 1], without alpha."""
    scale = np.float32(1 / np.iinfo(levels.dtype).max)
    colour = np.repeat(levels[..., :1], 3, axis=2) if levels.shape[2] < 3 else levels[..., :3]
    return colour.astype(np.float32) * scale


@contextmanager
def open_picture(source: str | Path | bytes, max_pixels: int | None = None) -> Iterator[tuple[Image.Image, bytes]]:
    """Yield a file, or the bytes of one, as Pillow opens it, its pixels not yet read, and the file's bytes.

    FORMATS and READ_ONLY are all that is accepted. `max_pixels` is a limit below MAX_PIXELS; a picture that says to
    have more is a TooManyPixelsError before any is decoded. What goes wrong, also in the block, becomes an ImageError
    that names the file.
    """
    name = "image" if isinstance(source, bytes) else Path(source)
    try:
        data = source if isinstance(source, bytes) else _read_file(Path(source))
        if not data:
            raise ImageError("the file is empty")
        formats = _READ
        if _is_heic(data):
            _teach_heic()
            formats = (*_READ, _HEIC)
        with warnings.catch_warnings():
            # Our own limit below speaks for itself; damaged metadata is not worth a warning.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(tiff.for_pillow(data)), formats=formats) as picture:
                width, height = picture.size
                limit = MAX_PIXELS if max_pixels is None else min(max_pixels, MAX_PIXELS)
                if width * height > limit:
                    raise TooManyPixelsError(f"{width} x {height} pixels; the limit is {limit} in all")
                _check_work(picture, data)
                yield picture, data
    except MemoryError as error:
        raise ImageError(f"{name}: too large for this machine's memory") from error
    except _DAMAGE as error:
        kind = (
            TooManyPixelsError if isinstance(error, (TooManyPixelsError, Image.DecompressionBombError)) else ImageError
        )
        raise kind(f"{name}: cannot be read as an image: {_reason(error)}") from error


def _check_work(picture: Image.Image, data: bytes) -> None:
    """Refuse what costs far more than its pixels."""
    if picture.format in ("JPEG", "MPO") and jpeg.scans(data) > jpeg.MOST_SCANS:
        raise ImageError(f"a JPEG of more than {jpeg.MOST_SCANS} scans; save it anew")
    run_lengths = picture.format == "BMP" and picture.info.get("compression") in (1, 2)
    if run_lengths and picture.width * picture.height > MOST_RUN_LENGTH_PIXELS:
        raise ImageError(f"a BMP with run lengths of more than {MOST_RUN_LENGTH_PIXELS} pixels; save it without them")


def _read_file(path: Path) -> bytes:
    """The bytes of a file; what is no file, such as a pipe, is not waited for."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ImageError("no file, but a pipe, socket or device")
    return path.read_bytes()


def _is_heic(data: bytes) -> bool:
    """Whether a file says that it is HEIC: the brands in its first box."""
    brands = data[8 : min(int.from_bytes(data[:4]), 256)] if data[4:8] == b"ftyp" else b""
    return not _HEIC_BRANDS.isdisjoint(brands[place : place + 4] for place in range(0, len(brands), 4))


def _teach_heic() -> None:
    """Have Pillow read HEIC, with the package that does it; an ImageError says how to get that."""
    try:
        import pi_heif
    except ImportError:
        raise ImageError("a HEIC file; to read it, pip install 'instruct-ipt[heic]', or save it as JPEG") from None
    pi_heif.register_heif_opener(thumbnails=False)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(_READ)}, or damaged in its first bytes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip() or type(error).__name__


def orientation(picture: Image.Image) -> int:
    """How the pixels are to be turned, 1 to 8 as in EXIF; 1, not at all, where that is missing or damaged.

    Pillow turns TIFF itself: once its pixels are loaded this is 1.
    """
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if value in range(1, 9) else 1


def tiff_tags(picture: Image.Image) -> Mapping[int, Any]:
    """The tags of a picture whose format is TIFF, as Pillow read them."""
    return cast("TiffImageFile", picture).tag_v2  # for `isinstance` Pillow's reader would have to be imported


def decode(picture: Image.Image, data: bytes, empty: Empty = np.empty) -> np.ndarray:
    """The pixels of what `open_picture` yields, upright, as uint8 or uint16 (H, W, C).

    C is 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGBA. Those of 8 bits lie in an array that `empty` made.
    Raises ImageError for other kinds of pixels, and whatever Pillow raises for damage.
    """
    if picture.mode in _WIDE_MODES:
        raise ImageError(f"{_WIDE_MODES[picture.mode]} pixels have no fixed range; save it with 8 or 16 bits")
    if picture.format == "TIFF" and 16 in tiff_tags(picture).get(tiff.BITS, ()):
        return _turn(tiff.read_levels(data, picture.size), orientation(picture))
    if picture.format == "PNG" and data[12:16] != b"IHDR":  # which says how many bits there are
        raise ImageError("its first chunk is not IHDR; save it anew")
    picture.load()  # raises where the file is truncated; OpenCV would return what there is
    if picture.format == "PNG" and data[24] == 16:  # bit depth; Pillow cuts 16-bit colour down to 8 silently
        return _turn(_read_wide_png(data, picture.info.get("transparency")), orientation(picture))
    return unpack(picture, orientation(picture), empty)


def unpack(picture: Image.Image, turned: int, empty: Empty = np.empty) -> np.ndarray:
    """The pixels of a picture with 8 bits per channel as `decode` returns them; `turned` is as from `orientation`.

    In bands, so that beside Pillow's picture there is nothing large but the result.
    """
    if picture.mode not in _GRAY_MODES + _COLOUR_MODES:
        raise ImageError(f"{picture.mode} pixels are not supported; save it as 8-bit RGB")
    # A transparent palette entry keeps its colour only where its alpha is kept as well.
    mode = ("L" if picture.mode in _GRAY_MODES else "RGB") + ("A" if picture.has_transparency_data else "")
    width, height = picture.size
    shape = (width, height) if turned in _SIDEWAYS else (height, width)
    levels = empty((*shape, len(mode)), np.uint8)
    stored = _turn(levels, {6: 8, 8: 6}.get(turned, turned))
    for top in range(0, height, _BAND_ROWS):
        band = picture.crop((0, top, width, min(top + _BAND_ROWS, height)))
        pixels = np.asarray(band if band.mode == mode else band.convert(mode))  # which copies in either case
        stored[top : top + _BAND_ROWS] = pixels.reshape(-1, width, len(mode))
    return levels


def _read_wide_png(data: bytes, transparent: int | tuple[int, ...] | bytes | None) -> np.ndarray:
    """16-bit pixels as `decode` returns them, not turned; `transparent` is the gray level that stands for nothing."""
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16:
        raise ImageError("this kind of 16-bit file is not supported; save it as 16-bit TIFF")
    if levels.ndim == 2:
        alpha = [] if transparent is None else [np.where(levels == transparent, 0, 65535).astype(np.uint16)]
        return np.stack([levels, *alpha], axis=2)
    has_colour = data[25] & 2
    return levels[..., [2, 1, 0, 3][: levels.shape[2]] if has_colour else [0, 3]]


def _turn(levels: np.ndarray, turned: int) -> np.ndarray:
    """Turn (H, W, C) pixels upright by the EXIF orientation 1 to 8."""
    if turned in _SIDEWAYS:
        levels = levels.transpose(1, 0, 2)
    if turned in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    if turned in (3, 4, 7, 8):
        levels = levels[::-1]
    return levels
