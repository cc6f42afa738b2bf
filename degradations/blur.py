"""Blur of the whole picture: a hand that shakes during the exposure, a lens out of focus."""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .light import convolve, linear_to_srgb, unclip
from .trajectory import STEPS, hand_path, hand_walk, path_kernel
from .transform import Damage

SHAKE_BOUNDS: Bounds = {
    "length": (0.0, 40.0),
    "nervousness": (0.0, 1.0),
    "roll": (0.0, 10.0),
    "highlight": (0.0, 10.0),
}
DEFOCUS_BOUNDS: Bounds = {"radius": (0.0, 20.0), "highlight": (0.0, 10.0)}


def camera_shake(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    length: float,
    nervousness: float = 0.5,
    roll: float = 0.0,
    highlight: float = 0.0,
) -> np.ndarray:
    """Average the picture along a random path of the hand, in linear light.

    The path is `hand_path`, whose mean is the place of the picture: its light is spread, not shifted.
    Light comes from outside the picture by mirroring.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the path.
        length: longer side of the path's bounding box, pixels, 0 to 40.
        nervousness: 0 (an even sweep) to 1 (a tremble with jerks).
        roll: rotation about the centre of the picture during the exposure, degrees, 0 to 10;
            makes the blur differ from place to place.
        highlight: clipped values really were up to 1 + highlight times white, 0 to 10; makes
            streaks of lamps and reflections.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when length and roll are 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "camera_shake")
    check_numbers(
        "camera_shake",
        SHAKE_BOUNDS,
        length=length,
        nervousness=nervousness,
        roll=roll,
        highlight=highlight,
    )
    if length == 0 and roll == 0:
        return image.copy()
    path = hand_path(rng, length=length, nervousness=nervousness)
    light = unclip(image, highlight)
    if roll == 0:
        return linear_to_srgb(convolve(light, path_kernel(path)))
    turn = hand_walk(rng, nervousness).real
    turn = (turn - turn.mean()) * (roll / max(float(np.ptp(turn)), 1e-9))
    return linear_to_srgb(_average_of_poses(light, path, turn))


def defocus(image: np.ndarray, rng: np.random.Generator, *, radius: float, highlight: float = 0.0) -> np.ndarray:
    """Average the picture over a disc (the open aperture of a thin lens), in linear light.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: not used; every damage has it.
        radius: of the disc, pixels, 0 to 20.
        highlight: clipped values really were up to 1 + highlight times white, 0 to 10.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when radius is 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "defocus")
    check_numbers("defocus", DEFOCUS_BOUNDS, radius=radius, highlight=highlight)
    if radius == 0:
        return image.copy()
    return linear_to_srgb(convolve(unclip(image, highlight), disc_kernel(radius)))


def disc_kernel(radius: float) -> np.ndarray:
    """Disc whose rim fades over one pixel, so that the radius may be any number.

    Args:
        radius: pixels, above 0.

    Returns:
        float32 (2 R + 1, 2 R + 1), sum 1, R = radius rounded up.
    """
    reach = math.ceil(radius)
    offset = np.arange(-reach, reach + 1)
    distance = np.hypot(offset[:, None], offset[None])
    disc = np.clip(radius - distance + 0.5, 0, 1)
    return (disc / disc.sum()).astype(np.float32)


def _average_of_poses(light: np.ndarray, path: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Mean of the picture moved by `path` (64, 2) pixels and turned by `angles` (64,) degrees."""
    height, width = light.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    reach = np.ptp(path, axis=0).max() + np.radians(np.ptp(angles)) * math.hypot(*middle)
    # Poses about a pixel apart are enough: bilinear interpolation fills between.
    poses = min(STEPS, 4 + math.ceil(1.5 * reach))
    total = np.zeros_like(light)
    for index in np.linspace(0, STEPS - 1, poses).round().astype(int):
        pose = cv2.getRotationMatrix2D(middle, float(angles[index]), 1.0)
        pose[:, 2] += path[index]
        cv2.accumulate(
            cv2.warpAffine(
                light,
                pose,
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            ),
            total,
        )
    total /= poses
    return total


class CameraShake(Damage):
    """`camera_shake` with its parameters drawn from ranges.

    Args:
        length: pixels, 0 to 40.
        nervousness: 0 to 1.
        roll: degrees, 0 to 10.
        highlight: 0 to 10.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(camera_shake)
    bounds: ClassVar[Bounds] = SHAKE_BOUNDS

    def __init__(
        self,
        length: Range = (1.0, 20.0),
        nervousness: Range = (0.0, 1.0),
        roll: Range = 0.0,
        highlight: Range = (0.0, 1.0),
        p: float = 0.5,
    ) -> None:
        super().__init__(p, length=length, nervousness=nervousness, roll=roll, highlight=highlight)


class Defocus(Damage):
    """`defocus` with its parameters drawn from ranges.

    Args:
        radius: pixels, 0 to 20.
        highlight: 0 to 10.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(defocus)
    bounds: ClassVar[Bounds] = DEFOCUS_BOUNDS

    def __init__(self, radius: Range = (0.5, 5.0), highlight: Range = (0.0, 1.0), p: float = 0.5) -> None:
        super().__init__(p, radius=radius, highlight=highlight)
