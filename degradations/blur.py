"""Blur: a hand that shakes during the exposure, a thing that moves, a lens out of focus."""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, check_image, check_numbers
from .light import linear_to_srgb, srgb_to_linear
from .trajectory import STEPS, hand_path, hand_walk, path_kernel
from .transform import Damage

SHAKE_BOUNDS: Bounds = {
    "length": (0.0, 40.0),
    "nervousness": (0.0, 1.0),
    "roll": (0.0, 10.0),
    "highlight": (0.0, 10.0),
}
OBJECT_BOUNDS: Bounds = {"length": (0.0, 40.0), "size": (0.05, 1.0), "highlight": (0.0, 10.0)}
DEFOCUS_BOUNDS: Bounds = {"radius": (0.0, 20.0), "highlight": (0.0, 10.0)}

WHITE = np.float32(254.5 / 255)  # a value above was clipped by the camera


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

    The path is `hand_path`; the place of the picture at half the exposure stays, as in the GoPro
    pairs, whose sharp image is the middle frame. Light comes from outside the picture by mirroring.

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
    light = _unclip(image, highlight)
    if roll == 0:
        return linear_to_srgb(_filter(light, path_kernel(path)))
    turn = hand_walk(rng, nervousness).real
    turn = (turn - turn[STEPS // 2]) * (roll / max(float(np.ptp(turn)), 1e-9))
    return linear_to_srgb(_average_of_poses(light, path, turn))


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
    check_numbers("object_motion", OBJECT_BOUNDS, length=length, size=size, highlight=highlight)
    if length == 0:
        return image.copy()
    direction = rng.uniform(0, np.pi)
    half = np.array([np.cos(direction), np.sin(direction)]) * length / 2
    kernel = path_kernel(np.linspace(-half, half, STEPS))
    place, mask = _outline(image.shape[:2], rng, size, margin=len(kernel) // 2 + 1)
    mask = mask[..., None]
    light = _unclip(image[place], highlight)
    # One filter for the thing's light and its mask.
    moved = _filter(np.concatenate([light * mask, mask], axis=2), kernel)
    blurred = image.copy()
    blurred[place] = linear_to_srgb(moved[..., :3] + (1 - moved[..., 3:]) * light)
    return blurred


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
    return linear_to_srgb(_filter(_unclip(image, highlight), disc_kernel(radius)))


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


def _outline(
    size: tuple[int, int], rng: np.random.Generator, share: float, margin: int
) -> tuple[tuple[slice, slice], np.ndarray]:
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


def _unclip(image: np.ndarray, highlight: float) -> np.ndarray:
    """Linear light with clipped values raised to 1 + highlight."""
    light = srgb_to_linear(image)
    if highlight > 0:
        light[image >= WHITE] *= np.float32(1 + highlight)
    return light


def _filter(light: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    # OpenCV correlates; a path is a convolution: the light moves along it.
    return cv2.filter2D(light, -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_REFLECT_101)


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
        length=(1.0, 20.0),
        nervousness=(0.0, 1.0),
        roll=0.0,
        highlight=(0.0, 1.0),
        p: float = 0.5,
    ):
        super().__init__(p, length=length, nervousness=nervousness, roll=roll, highlight=highlight)


class ObjectMotion(Damage):
    """`object_motion` with its parameters drawn from ranges.

    Args:
        length: pixels, 0 to 40.
        size: share of the longer side, 0.05 to 1.
        highlight: 0 to 10.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(object_motion)
    bounds: ClassVar[Bounds] = OBJECT_BOUNDS

    def __init__(self, length=(2.0, 20.0), size=(0.2, 0.8), highlight=(0.0, 1.0), p: float = 0.5):
        super().__init__(p, length=length, size=size, highlight=highlight)


class Defocus(Damage):
    """`defocus` with its parameters drawn from ranges.

    Args:
        radius: pixels, 0 to 20.
        highlight: 0 to 10.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(defocus)
    bounds: ClassVar[Bounds] = DEFOCUS_BOUNDS

    def __init__(self, radius=(0.5, 5.0), highlight=(0.0, 1.0), p: float = 0.5):
        super().__init__(p, radius=radius, highlight=highlight)
