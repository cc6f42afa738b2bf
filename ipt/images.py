"""Reading image files of common kinds into the image contract: float32 (H, W, 3) RGB in [0, 1]."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

MAX_PIXELS = 120_000_000  # above the largest cameras; a small file can claim far more and fill the memory
_ORIENTATION_TAG = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WIDE_MODES = {"I": "32-bit integer", "F": "floating point"}
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
    struct.error,
    zlib.error,
    cv2.error,
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """A file that cannot be read as a picture; the message names the file and the reason."""


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as float32 (H, W, 3) RGB in [0, 1], the way up its EXIF orientation says.

    8 and 16 bits per channel keep their precision; gray is repeated in three channels; palette and
    CMYK are converted; alpha is dropped and the colour stored under it stays; of several frames or
    pages the first is read. Raises ImageError for a missing, truncated, damaged or huge (over
    MAX_PIXELS) file and for pixel types without a fixed range (32-bit, floating point).
    """
    return _read(Path(path), None)[0]


def read_thumbnail(path: str | Path, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a file as `read_image`, but a JPEG at a fraction of its size, for a quick look.

    Returns the picture, float32 (h, w, 3) RGB in [0, 1] with both sides at least min(side, full
    side), and the (height, width) in pixels that `read_image` would return. Raises ImageError.
    """
    return _read(Path(path), side)


def _read(path: Path, draft_side: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            # Our own limit below speaks for itself; damaged metadata is not worth a warning.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise ImageError(f"{width} x {height} pixels; the limit is {MAX_PIXELS} in all")
                orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
                if draft_side is not None:
                    picture.draft("RGB", (draft_side, draft_side))
                levels = _levels(picture, data)
    except MemoryError as error:
        raise ImageError(f"{path}: too large for this machine's memory") from error
    except _DAMAGE as error:
        reason = str(error).replace(repr(path), "").strip() or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image, or damaged in its first bytes"
        raise ImageError(f"{path}: cannot be read as an image: {reason}") from error
    upright = _turn(levels, orientation)
    turned = orientation in (5, 6, 7, 8)
    scale = np.float32(1 / np.iinfo(upright.dtype).max)
    return upright.astype(np.float32) * scale, (width, height) if turned else (height, width)


def _levels(picture: Image.Image, data: bytes) -> np.ndarray:
    """The pixels as uint8 or uint16 (H, W, 3) RGB, before orientation."""
    if picture.mode in _WIDE_MODES:
        kind = _WIDE_MODES[picture.mode]
        raise ImageError(f"{kind} pixels have no fixed range; save it with 8 or 16 bits")
    picture.load()  # raises where the file is truncated; OpenCV would return what there is
    if not _has_16_bits(picture, data):
        # Through RGBA, because a transparent palette entry would otherwise lose its colour.
        picture = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
        return np.asarray(picture.convert("RGB"))
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16:
        raise ImageError("this kind of 16-bit file is not supported; save it as 16-bit PNG")
    if levels.ndim == 2 or levels.shape[2] < 3:
        gray = levels.reshape(levels.shape[0], levels.shape[1], -1)[..., 0]
        return np.repeat(gray[..., None], 3, axis=2)
    return levels[..., 2::-1]


def _has_16_bits(picture: Image.Image, data: bytes) -> bool:
    if picture.format == "PNG":
        return data[24] == 16  # bit depth in IHDR; Pillow cuts 16-bit colour down to 8 silently
    if picture.format == "TIFF" and 16 in picture.tag_v2.get(_TIFF_BITS, ()):
        if picture.tag_v2.get(_TIFF_PHOTOMETRIC) not in (1, 2):
            raise ImageError("a 16-bit TIFF that is neither gray nor RGB; save it as 16-bit PNG")
        return True
    return False


def _turn(levels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, 3) pixels upright by the EXIF orientation 1 to 8; other values mean no turn."""
    if orientation in (5, 6, 7, 8):
        levels = levels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    return levels
