"""What a browser is shown of a photograph: the file itself, or a picture made for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from ipt.photos import png
from ipt.photos.photo import Photo, encode_photo

LONGEST = 2560  # pixels, side of what is shown of a larger picture while the whole of it is looked at
_SHOWN = ("JPEG", "PNG", "WEBP", "BMP")


@dataclass(frozen=True)
class Look:
    """What a picture is, and what a browser is shown of it; whether it shows the file itself as well."""

    width: int
    height: int
    format: str
    bits: int
    shows_file: bool
    preview: tuple[bytes, str]


def look(photo: Photo) -> Look:
    """What `photo` is, and what a browser is shown of it."""
    height, width = photo.levels.shape[:2]
    shown = preview(photo, photo.levels)
    return Look(width, height, photo.format, photo.levels.itemsize * 8, browsers_show(photo), shown)


def browsers_show(photo: Photo) -> bool:
    """Whether a browser shows the file itself as it is: a common format of 8 bits."""
    return photo.format in _SHOWN and photo.levels.dtype == np.uint8 and not photo.foreign


def preview(photo: Photo, levels: np.ndarray) -> tuple[bytes, str]:
    """An 8-bit picture of `levels`, of the type and shape of `photo.levels`, for a browser, and its media type.

    Of what browsers show themselves, with sides up to LONGEST, as JPEG, or PNG where there is transparency or where
    chunks of a PNG say what its colours are; of TIFF and 16 bits all pixels, as PNG. What is said of colours goes
    along, nothing else does.
    """
    whole = not browsers_show(photo)
    levels, *rest = (_shown(band, whole) for band in (levels, photo.alpha) if band is not None)
    alpha = rest[0] if rest else None
    colours = tuple(
        (name, body) for name, body in photo.pieces if name in png.COLOURS
    )  # of a JPEG none has such a name
    kind = "PNG" if whole or rest or (png.other_colours(colours) and not photo.icc) else "JPEG"
    bare = dataclasses.replace(photo, exif=None, xmp=None, dpi=None, pieces=colours if kind == "PNG" else ())
    plain = dataclasses.replace(bare, levels=levels, alpha=alpha, format=kind)
    return encode_photo(plain, levels), f"image/{kind.lower()}"


def _shown(band: np.ndarray, whole: bool) -> np.ndarray:
    """(H, W) or (H, W, C) of 8 or 16 bits as uint8; unless `whole`, with its longer side at most LONGEST."""
    if band.dtype == np.uint16:
        band = (band >> 8).astype(np.uint8)
    height, width = band.shape[:2]
    scale = LONGEST / max(height, width)
    if whole or scale >= 1:
        return band
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(band, size, interpolation=cv2.INTER_AREA)
