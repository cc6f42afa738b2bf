"""A person's photograph: read with all that must survive, and written back restored in its own format."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from PIL import Image, ImageCms

from ipt.files import replace_file
from ipt.photos import png, tiff
from ipt.photos.images import READ_ONLY, Empty, ImageError, decode, open_picture, orientation, tiff_tags, unpack
from ipt.photos.tags import BYTE, UNDEFINED, pack_header, pack_tags, read_tags, upright_exif

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

_QUALITY = 95
_XMP, _ICC, _PREVIEW, _DNG = 700, 34675, 254, 50706
# TIFF: titles, camera, resolution, dates, authors, colours, ratings, IPTC, EXIF, GPS; not what tells of the layout.
_KEPT_TAGS = {269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432, 33723, 34665}
_KEPT_TAGS |= {34853, *range(40091, 40096)}
_KEPT_SEGMENTS = {"APP13": b"\xff\xed", "COM": b"\xff\xfe"}  # JPEG: IPTC, comment
_SEGMENT_BYTES = 65533
_KEPT_CHUNKS = (*png.COLOURS, b"pHYs", b"tEXt", b"zTXt", b"iTXt")  # PNG
_TEXT_OF_OURS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_ELSEWHERE = (b"ns.google.com/photos/1.0/container/", b"ns.adobe.com/hdr-gain-map/")  # XMP of further pictures


@dataclass(frozen=True, eq=False)
class Photo:
    """The pixels of a file and what else it says; `levels` and `alpha` are upright.

    levels: uint8 or uint16 (H, W, 3) RGB; a gray photo has its gray in all three channels.
    alpha: (H, W) of the same type, or None.
    gray: the file has gray pixels, and so will the one that is written.
    format: "JPEG", "PNG", "WEBP", "TIFF" or "BMP", as which it will be written.
    foreign: the file is of another kind (HEIC, AVIF), which is not written.
    icc: colour profile of the levels.
    exif: EXIF block with orientation 1 and no thumbnail, without the "Exif" before it; of a TIFF, its tags.
    xmp: XMP packet with orientation 1.
    dpi: resolution in dots per inch, horizontal and vertical; as the file has it, unturned.
    lossless: of a WebP, whether it is lossless.
    compression: of a TIFF, its number for that.
    pieces: (kind, content) of what else is kept: chunks of a PNG, segments of a JPEG.
    """

    levels: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    format: str
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    lossless: bool = False
    compression: int = tiff.NONE
    pieces: tuple[tuple[bytes, bytes], ...] = ()
    foreign: bool = False


def read_photo(source: str | Path | bytes, max_pixels: int | None = None, empty: Empty = np.empty) -> Photo:
    """Read a JPEG, PNG, WebP, TIFF or BMP file, whatever its suffix, or the bytes of one; HEIC (with the extra `heic`)
    and AVIF too, with 8 bits, to be written as JPEG, or as PNG where they have transparency.

    CMYK becomes RGB, through its profile to sRGB where it has one; a palette becomes RGB; fewer than 8 bits become 8.
    Of a phone's JPEG with further pictures the first is read. Raises ImageError for what is no such file, missing,
    empty, truncated, damaged or huge (over MAX_PIXELS, or `max_pixels`: TooManyPixelsError), for animations,
    several pages and camera raw files, and for pixels that are not gray or RGB of at most 16 bits or CMYK of 8. Damaged
    EXIF is left out. RGB of 8 bits lies in an array that `empty` made.
    """
    name = source if isinstance(source, bytes) else Path(source)
    with open_picture(name, max_pixels) as (picture, data):
        _refuse_unfit(picture)
        in_srgb = _cmyk_to_srgb(picture)
        pixels = unpack(in_srgb, orientation(picture), empty) if in_srgb else decode(picture, data, empty)
        rest = _read_rest(picture, data)
        if picture.mode == "CMYK":
            rest["icc"] = None  # it was of the four inks
    if rest["format"] in READ_ONLY.values():
        rest["foreign"] = True
        rest["format"] = "PNG" if pixels.shape[2] in (2, 4) else "JPEG"
    gray = pixels.shape[2] < 3
    alpha = np.ascontiguousarray(pixels[..., -1]) if pixels.shape[2] in (2, 4) else None
    levels = np.repeat(pixels[..., :1], 3, axis=2) if gray else np.ascontiguousarray(pixels[..., :3])
    return Photo(levels, alpha, gray, **rest)


def write_photo(photo: Photo, levels: np.ndarray, path: Path, like: Path | None = None) -> None:
    """Write `levels`, of the type and shape of `photo.levels`, with all else of `photo`, in its format.

    Those may read it who may read `like` (None: as with any new file). The file appears whole or not at all; its folder
    is made. Raises the errors of `encode_photo`.
    """
    data = encode_photo(photo, levels)
    with replace_file(Path(path), like) as temporary:
        temporary.write_bytes(data)


def encode_photo(photo: Photo, levels: np.ndarray) -> bytes:
    """The content of the file that `write_photo` writes.

    Of a gray photo the mean of the three channels is written. JPEG and lossy WebP have quality 95, JPEG with full
    colour resolution. Raises ValueError for levels of another type or shape.
    """
    check_levels(photo, levels)
    encode = {"JPEG": _to_jpeg, "PNG": _to_png, "WEBP": _to_webp, "TIFF": _to_tiff, "BMP": _to_bmp}[photo.format]
    return encode(photo, _pixels(photo, levels))


def check_levels(photo: Photo, levels: np.ndarray) -> None:
    """Raise ValueError for levels of another type or shape than those of `photo`."""
    if levels.dtype != photo.levels.dtype or levels.shape != photo.levels.shape:
        expected, got = (f"{array.dtype} {array.shape}" for array in (photo.levels, levels))
        raise ValueError(f"levels: expected {expected} as they were read, got {got}; round and scale them first")


def restored_file(photo: Photo, levels: np.ndarray, original: bytes, unchanged: bool) -> bytes:
    """The file to give back for `original`, from which `photo` was read: itself, to the byte, where it is `unchanged`
    and of a kind that is written, else what `encode_photo` makes."""
    return original if unchanged and not photo.foreign else encode_photo(photo, levels)


def _refuse_unfit(picture: Image.Image) -> None:
    if picture.format not in ("MPO", "HEIF") and _has_more(picture):  # of these the first, or the one meant, is read
        raise ImageError("several pictures or pages; expected one: save the one you want as a file of its own")
    if picture.format == "TIFF" and (_DNG in tiff_tags(picture) or tiff_tags(picture).get(_PREVIEW, 0) & 1):
        raise ImageError("a camera's raw file, whose preview alone could be read; develop it to TIFF or JPEG first")


def _has_more(picture: Image.Image) -> bool:
    """Whether there is a second page or picture; to count the pages of a TIFF takes time by their number squared."""
    if picture.format != "TIFF":
        return getattr(picture, "n_frames", 1) > 1
    try:
        picture.seek(1)
    except EOFError:
        return False
    finally:
        picture.seek(0)
    return True


def _cmyk_to_srgb(picture: Image.Image) -> Image.Image | None:
    """A CMYK picture in sRGB by its own profile; None where it is not CMYK or its profile is missing or damaged."""
    if picture.mode != "CMYK" or not picture.info.get("icc_profile"):
        return None
    picture.load()
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(picture.info["icc_profile"]))
        return ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _read_rest(picture: Image.Image, data: bytes) -> dict[str, Any]:
    """The fields of Photo that are not pixels."""
    info, kind = picture.info, "JPEG" if picture.format == "MPO" else picture.format
    rest: dict[str, Any] = {"format": kind, "icc": _bytes(info.get("icc_profile")), "dpi": _dpi(info.get("dpi"))}
    rest["exif"] = _tiff_exif(data) if kind == "TIFF" else _exif(info)
    xmp = _bytes(info.get("xmp"))
    if xmp and not any(name in xmp for name in _ELSEWHERE):
        rest["xmp"] = re.sub(rb"(tiff:Orientation(?:=[\"']|>))[0-9]", rb"\g<1>1", xmp)
    if kind == "JPEG":
        segments = cast("JpegImageFile", picture).applist  # for `isinstance` Pillow's reader would have to be imported
        rest["pieces"] = tuple((_KEPT_SEGMENTS[name], body) for name, body in segments if name in _KEPT_SEGMENTS)
    elif kind == "PNG":
        kept = ((name, body) for name, body in png.read_chunks(data) if name in _KEPT_CHUNKS)
        rest["pieces"] = tuple((name, body) for name, body in kept if not body.startswith(_TEXT_OF_OURS))
    elif kind == "WEBP":
        rest["lossless"] = _is_lossless_webp(data)
    elif kind == "TIFF":
        told = tiff_tags(picture).get(tiff.COMPRESSION, tiff.NONE)
        rest["compression"] = told if type(told) is int else tiff.DEFLATE  # 1.0 is as good as 1 to Pillow's reader
    return rest


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _dpi(value: Any) -> tuple[float, float] | None:
    """A resolution as two numbers that JPEG and BMP can hold, None for anything else."""
    try:
        across, down = (float(number) for number in value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return (across, down) if all(math.isfinite(x) and 0 < x <= 65535 for x in (across, down)) else None


def _exif(info: dict[str | tuple[int, int], Any]) -> bytes | None:
    block = _bytes(info.get("exif"))
    if block is None:
        try:  # as older programs hide it in PNG: hexadecimal after three lines
            block = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
        except (KeyError, ValueError, AttributeError):
            return None
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return upright_exif(block)


def _tiff_exif(data: bytes) -> bytes | None:
    order, tags = read_tags(data)
    kept = {tag: value for tag, value in tags.items() if tag in _KEPT_TAGS}
    return pack_header(order, 8) + pack_tags(order, kept, 8) if kept else None


def _is_lossless_webp(data: bytes) -> bool:
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sL", data, place)
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        place += 8 + size + size % 2
    return False


def _pixels(photo: Photo, levels: np.ndarray) -> np.ndarray:
    """(H, W, C) as the file holds them: gray, gray and alpha, RGB or RGBA."""
    if photo.gray:
        mean = (levels.sum(axis=2, keepdims=True, dtype=np.uint32) + 1) // 3  # exactly the mean, rounded
        levels = mean.astype(levels.dtype)
    return levels if photo.alpha is None else np.concatenate([levels, photo.alpha[..., None]], axis=2)


def _save(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _to_jpeg(photo: Photo, pixels: np.ndarray) -> bytes:
    room, exif = _SEGMENT_BYTES - 6, photo.exif or b""
    pieces = [(b"\xff\xe1", b"Exif\0\0" + exif[start : start + room]) for start in range(0, len(exif), room)]
    extra = b"".join(mark + struct.pack(">H", 2 + len(body)) + body for mark, body in [*pieces, *photo.pieces])
    options = {"quality": _QUALITY, "subsampling": "4:4:4", "dpi": photo.dpi or (0, 0)}
    return _save(pixels, "JPEG", extra=extra, icc_profile=photo.icc, xmp=photo.xmp, **options)


def _to_webp(photo: Photo, pixels: np.ndarray) -> bytes:
    texts = {"icc_profile": photo.icc or b"", "exif": photo.exif or b"", "xmp": photo.xmp or b""}
    # `exact` keeps the colour under what is transparent.
    return _save(pixels, "WEBP", quality=_QUALITY, lossless=photo.lossless, exact=True, **texts)


def _to_png(photo: Photo, pixels: np.ndarray) -> bytes:
    chunks = list(photo.pieces)
    if photo.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc)))
    if photo.exif:
        chunks.append((b"eXIf", photo.exif))
    if photo.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + photo.xmp))
    return png.encode(pixels, chunks)


def _to_tiff(photo: Photo, pixels: np.ndarray) -> bytes:
    order, tags = read_tags(photo.exif) if photo.exif else ("<", {})
    for tag, kind, value in ((_XMP, BYTE, photo.xmp), (_ICC, UNDEFINED, photo.icc)):
        if value:
            tags[tag] = (kind, len(value), value)
    return tiff.encode(pixels, order, tags, photo.compression)


def _to_bmp(photo: Photo, pixels: np.ndarray) -> bytes:
    stored = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.shape[2] > 1 else pixels
    data = bytearray(cv2.imencode(".bmp", np.ascontiguousarray(stored))[1])
    if photo.dpi:
        struct.pack_into("<2L", data, 38, *(round(number / 0.0254) for number in photo.dpi))
    return bytes(data)
