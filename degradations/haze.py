"""Haze: light scattered out of the ray and airlight scattered into it, more with distance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .depth import scene_depth
from .transform import Damage

BOUNDS: Bounds = {
    "beta": (0.0, 10.0),
    "airlight": (0.0, 1.0),
    "tint": (0.0, 0.3),
    "near": (0.0, 1000.0),
    "span": (0.0, 1000.0),
}


def haze(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    beta: float,
    airlight: float,
    tint: float = 0.0,
    near: float = 2.0,
    span: float = 6.0,
    depth: np.ndarray | None = None,
) -> np.ndarray:
    """Look at the scene through haze: I = J t + A (1 - t) with t = exp(-beta d).

    Koschmieder's law, on sRGB values as in the dehazing literature (He et al. 2009) and in the
    RESIDE benchmark (Li et al. 2019).

    Args:
        image: float32 (H, W, 3) RGB in [0, 1], J.
        rng: draws the scene when no depth is given, and the colour of the airlight.
        beta: scattering coefficient, 1/metre, 0 to 10.
        airlight: brightness of A, 0 to 1.
        tint: each channel of A departs from `airlight` by a number drawn from [-tint, tint],
            0 to 0.3; A is clipped to [0, 1].
        near: depth of the nearest point of a made-up scene, metres, 0 to 1000.
        span: how much farther its farthest point is, metres, 0 to 1000; 0 is a uniform veil, as
            in a tile that shows one wall.
        depth: (H, W) non-negative and finite, metres; takes the place of the made-up scene.

    Returns:
        float32 (H, W, 3) in [0, 1]; equal to `image` when beta is 0.

    Raises:
        ValueError: a parameter out of range, not such an image, or a depth that does not fit it.
    """
    image = check_image(image, "haze")
    check_numbers("haze", BOUNDS, beta=beta, airlight=airlight, tint=tint, near=near, span=span)
    colour = np.clip(airlight + tint * rng.uniform(-1, 1, 3), 0, 1).astype(np.float32)
    if depth is None:
        depth = np.float32(near) + np.float32(span) * scene_depth(image, rng)
    else:
        depth = _check_depth(depth, image)
    transmission = np.exp(np.float32(-beta) * depth)[..., None]
    hazy = image - colour
    hazy *= transmission
    hazy += colour
    return np.clip(hazy, 0.0, 1.0, out=hazy)


def add_veil(image: np.ndarray, rng: np.random.Generator, *, veil: float, brightness: float) -> np.ndarray:
    """Cover a picture with what many distant drops or flakes add up to: I (1 - v d) + L v d.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws a made-up scene for the relative depth d.
        veil: opacity v at the farthest point, 0 to 1.
        brightness: L, gray, 0 to 1.

    Returns:
        float32 (H, W, 3) in [0, 1]; `image` itself when veil is 0.
    """
    if veil == 0:
        return image
    opacity = np.float32(veil) * scene_depth(image, rng)[..., None]
    return image + (np.float32(brightness) - image) * opacity


def _check_depth(depth: np.ndarray, image: np.ndarray) -> np.ndarray:
    depth = np.asarray(depth, np.float32)
    if depth.shape != image.shape[:2]:
        raise ValueError(f"haze: expected a depth of shape {image.shape[:2]}, got {depth.shape}; resize it")
    if not np.isfinite(depth).all() or depth.min() < 0:
        raise ValueError("haze: expected depth in metres, finite and >= 0; fill missing values")
    return depth


class Haze(Damage):
    """`haze` over made-up scenes with its parameters drawn from ranges.

    Args:
        beta: 1/metre, 0 to 10.
        airlight: 0 to 1.
        tint: 0 to 0.3.
        near: metres, 0 to 1000.
        span: metres, 0 to 1000.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(haze)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self,
        beta: Range = (0.05, 0.22),
        airlight: Range = (0.7, 1.0),
        tint: Range = (0.0, 0.03),
        near: Range = (1.0, 6.0),
        span: Range = (0.0, 5.0),
        p: float = 0.5,
    ) -> None:
        super().__init__(p, beta=beta, airlight=airlight, tint=tint, near=near, span=span)
