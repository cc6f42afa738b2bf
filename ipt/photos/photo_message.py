"""A photograph as a message, and back: field by field, each checked, since the one who sends it may not be trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ipt.photos.file_channel import Message, checked, whole
from ipt.photos.images import FORMATS
from ipt.photos.photo import Photo

_TEXTS = ("icc", "exif", "xmp")
_FLAGS = ("gray", "lossless", "foreign")


def pack_photo(photo: Photo, levels: np.ndarray) -> Message:
    """A message with `photo` and, in place of its own, `levels` of the same shape and type."""
    texts = {name: text for name in _TEXTS if (text := getattr(photo, name)) is not None}
    values = {name: getattr(photo, name) for name in (*_FLAGS, "format", "dpi", "compression")}
    values |= {"texts": list(texts), "kinds": [kind.hex() for kind, _ in photo.pieces]}
    pixels = [levels] if photo.alpha is None else [levels, photo.alpha]
    return Message(values, pixels, [*texts.values(), *(body for _, body in photo.pieces)])


def unpack_photo(message: Message, max_pixels: int) -> Photo:
    """The inverse of `pack_photo`; ValueError where it is no photograph, or one of more than `max_pixels`."""
    values = message.values
    levels, alpha = _pixels(message, max_pixels)
    kind = checked(values.get("format"), str, "format")
    if kind not in FORMATS.values():
        raise ValueError(f"format: got {kind!r}")
    names = checked(values.get("texts"), list, "texts")
    kinds = [bytes.fromhex(checked(name, str, "kinds")) for name in checked(values.get("kinds"), list, "kinds")]
    if names != [name for name in _TEXTS if name in names] or len(message.texts) != len(names) + len(kinds):
        raise ValueError(f"texts: got {names} and {len(kinds)} pieces for {len(message.texts)} texts")
    return Photo(
        levels,
        alpha,
        format=kind,
        dpi=_dpi(values.get("dpi")),
        compression=whole(values.get("compression"), "compression"),
        pieces=tuple(zip(kinds, message.texts[len(names) :], strict=True)),
        **dict(zip(names, message.texts, strict=False)),
        **{name: checked(values.get(name), bool, name) for name in _FLAGS},
    )


def _pixels(message: Message, max_pixels: int) -> tuple[np.ndarray, np.ndarray | None]:
    levels, *rest = message.pixels
    height, width, channels = levels.shape
    if channels != 3 or not 0 < height * width <= max_pixels or len(rest) > 1:
        raise ValueError(f"pixels: got {levels.shape} and {len(rest)} more")
    for alpha in rest:
        if alpha.shape != (height, width) or alpha.dtype != levels.dtype:
            raise ValueError(f"alpha: got {alpha.dtype} {alpha.shape}")
    return levels, rest[0] if rest else None


def _dpi(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    across, down = (float(checked(number, (int, float), "dpi")) for number in checked(value, list, "dpi"))
    if not all(math.isfinite(number) and 0 < number <= 65535 for number in (across, down)):
        raise ValueError(f"dpi: got {value}")
    return across, down
