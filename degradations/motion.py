"""Blur of a part of the picture: a thing that moves during the exposure."""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .light import convolve, linear_to_srgb, unclip
from .trajectory import STEPS, path_kernel
from .transform import Damage

BOUNDS: Bounds = {"length": (0.0, 40.0), "size": (0.05, 1.0), "highlight": (0.0, 10.0)}


def object_motion(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    length: float,
    size: float,
    highlight: float = 0.0,
) -> np.ndarray:
    """Blur one thing in the picture that moves evenly while the rest stands still.

    y = k * (m x) + (1 - k * m) x in linear light, m the thing's outline (a random super-ellipse)
    and k its path, at a random angle. What it uncovers is taken to look as it does.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the thing's place, outline and direction.
        length: of the path, pixels, 0 to 40.
        size: of the thing, its diameter as a share of the picture's longer side, 0.05 to 1.
        highlight: clipped values really were up to 1 + highlight times white, 0 to 10.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when length is 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "object_motion")
    check_numbers("object_motion", BOUNDS, length=length, size=size, highlight=highlight)
    if length == 0:
        return image.copy()
    direction = rng.uniform(0, np.pi)
    half = np.array([np.cos(direction), np.sin(direction)]) * length / 2
    kernel = path_kernel(np.linspace(-half, half, STEPS))
    place, mask = _outline(image.shape[:2], rng, size, margin=len(kernel) // 2 + 1)
    mask = mask[..., None]
    light = unclip(image[place], highlight)
    # One filter for the thing's light and its mask.
    moved = convolve(np.concatenate([light * mask, mask], axis=2), kernel)
    blurred = image.copy()
    blurred[place] = linear_to_srgb(moved[..., :3] + (1 - moved[..., 3:]) * light)
    return blurred


def _outline(
    size: tuple[int, int], rng: np.random.Generator, share: float, margin: int
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A super-ellipse with a soft rim: the part of a picture that it fills, `margin` pixels around included, and its
    mask there, float32 (h, w) in [0, 1]."""
    radius = share * max(size) / 2
    centre = [rng.uniform(0, side) for side in size]
    across, up = radius * rng.uniform(0.6, 1.0, 2)
    power = np.float32(rng.uniform(2, 5))
    place = tuple(
        slice(max(math.floor(middle - reach) - margin, 0), min(math.ceil(middle + reach) + margin + 1, side))
        for middle, reach, side in zip(centre, (up, across), size, strict=True)
    )
    y, x = (
        np.abs((np.arange(part.start, part.stop, dtype=np.float32) - np.float32(middle)) / np.float32(reach)) ** power
        for part, middle, reach in zip(place, centre, (up, across), strict=True)
    )
    distance = cv2.pow(y[:, None] + x[None], 1 / float(power))
    return place, np.clip((1 - distance) * np.float32(radius / 2) + np.float32(0.5), 0, 1)


class ObjectMotion(Damage):
    """`object_motion` with its parameters drawn from ranges.

    Args:
        length: pixels, 0 to 40.
        size: share of the longer side, 0.05 to 1.
        highlight: 0 to 10.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(object_motion)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self, length: Range = (2.0, 20.0), size: Range = (0.2, 0.8), highlight: Range = (0.0, 1.0), p: float = 0.5
    ) -> None:
        super().__init__(p, length=length, size=size, highlight=highlight)
