"""Drops on the lens: each is a lens of its own that shows the scene small, upside down and out of focus."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .transform import Damage

BOUNDS: Bounds = {
    "density": (0.0, 1000.0),
    "size": (2.0, 120.0),
    "opacity": (0.0, 1.0),
    "rim": (0.0, 1.0),
}

FIELD = 3.0  # times its own radius is what a drop shows of the scene around it


def lens_drops(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    density: float,
    size: float,
    opacity: float = 1.0,
    rim: float = 0.4,
) -> np.ndarray:
    """Put drops of water on the lens: y = (1 - m) x + m R, m their soft discs and R what they refract.

    The composition of Qian et al. 2018. A drop in front of the lens images the scene as a fisheye does: around its
    centre c, R(p) = x(c - k (p - c)), k growing to the rim; it stands too near to be in focus, so R and its rim are
    soft. Drops that meet run together.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the drops.
        density: drops per megapixel, 0 to 1000.
        size: diameter of the largest, pixels, 2 to 120; the smallest have a quarter.
        opacity: of a drop's middle, 0 to 1.
        rim: how much darker a drop's rim is than its middle, 0 to 1: there it bends light from beside the scene.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when density or opacity is 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "lens_drops")
    check_numbers("lens_drops", BOUNDS, density=density, size=size, opacity=opacity, rim=rim)
    height, width = image.shape[:2]
    count = rng.poisson(density * 1e-6 * (height + size) * (width + size))
    centre = rng.uniform(-size / 2, (width + size / 2, height + size / 2), (count, 2))
    radius = size / 2 * rng.uniform(0.25, 1.0, count)
    squeeze = rng.uniform(0.75, 1.0, count)  # drops hang: higher than wide
    if opacity == 0 or count == 0:
        return image.copy()
    cover, offset = _nearest_drop((height, width), centre, radius, squeeze)
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    distance = 1 - cover  # from the centre, in radii: 0 in the middle, 1 at the rim
    strength = -(1 + np.float32(FIELD) * (0.5 + 0.5 * distance**2))
    seen: np.ndarray = cv2.remap(
        cv2.GaussianBlur(image, (0, 0), 1 + size / 40),
        column + strength * offset[..., 0],
        row + strength * offset[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    seen *= (1 - np.float32(rim) * distance**4)[..., None]
    soft = np.minimum(3 * cover, 1)  # out of focus: the rim fades over a third of the radius
    mask = np.float32(opacity) * (soft * soft * (3 - 2 * soft))[..., None]
    return np.clip(image + mask * (seen - image), 0.0, 1.0)


def _nearest_drop(
    shape: tuple[int, int], centre: np.ndarray, radius: np.ndarray, squeeze: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the drop it lies deepest in: 1 minus the distance in radii (H, W), 0 outside of all, and the
    place relative to its centre (H, W, 2), pixels."""
    cover = np.zeros(shape, np.float32)
    offset = np.zeros((*shape, 2), np.float32)
    for (x, y), r, narrow in zip(centre, radius, squeeze, strict=True):
        left, right = max(int(x - r), 0), min(int(x + r) + 2, shape[1])
        top, bottom = max(int(y - r), 0), min(int(y + r) + 2, shape[0])
        if left >= right or top >= bottom:
            continue
        dx = (np.arange(left, right) - x).astype(np.float32)[None]
        dy = (np.arange(top, bottom) - y).astype(np.float32)[:, None]
        depth = 1 - np.hypot(dx / np.float32(narrow), dy) / np.float32(r)
        part = cover[top:bottom, left:right]
        deeper = depth > part
        part[deeper] = depth[deeper]
        window = offset[top:bottom, left:right]
        window[..., 0] = np.where(deeper, dx, window[..., 0])
        window[..., 1] = np.where(deeper, dy, window[..., 1])
    return cover, offset


class LensDrops(Damage):
    """`lens_drops` with its parameters drawn from ranges.

    Args:
        density: drops per megapixel, 0 to 1000.
        size: pixels, 2 to 120.
        opacity: 0 to 1.
        rim: 0 to 1.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(lens_drops)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self,
        density: Range = (50.0, 400.0),
        size: Range = (10.0, 60.0),
        opacity: Range = (0.8, 1.0),
        rim: Range = (0.2, 0.6),
        p: float = 0.5,
    ) -> None:
        super().__init__(p, density=density, size=size, opacity=opacity, rim=rim)
