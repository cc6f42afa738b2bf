"""Snow: flakes of many sizes at many distances, some out of focus, and the veil behind them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .flakes import draw_flakes, grain, scatter
from .haze import add_veil
from .transform import Damage

BOUNDS: Bounds = {
    "density": (0.0, 50000.0),
    "size": (0.5, 20.0),
    "opacity": (0.0, 1.0),
    "motion": (0.0, 40.0),
    "angle": (-90.0, 90.0),
    "soft_density": (0.0, 2000.0),
    "soft_size": (2.0, 60.0),
    "brightness": (0.5, 1.0),
    "veil": (0.0, 1.0),
    "distant": (0.0, 1.0),
}

FARTHEST = 4.0  # times the distance of the nearest flake in focus


def snow(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    density: float,
    size: float,
    opacity: float,
    motion: float = 0.0,
    angle: float = 0.0,
    soft_density: float = 0.0,
    soft_size: float = 12.0,
    brightness: float = 0.95,
    veil: float = 0.0,
    distant: float = 0.0,
) -> np.ndarray:
    """Let it snow: y = x T + brightness (1 - T), T the product over the flakes of 1 - opacity.

    The mask model of Liu et al. 2018 (Snow100K) with drawn flakes in place of masks: irregular
    rims, size and motion that fall with distance, and discs of near flakes out of focus.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the flakes.
        density: flakes in focus per megapixel, 0 to 50000.
        size: diameter of the nearest of them, pixels, 0.5 to 20; the farthest have a quarter.
        opacity: of the most opaque flakes, 0 to 1.
        motion: path of the nearest flakes during the exposure, pixels, 0 to 40.
        angle: of the falling direction, degrees counter-clockwise from straight down, -90 to 90.
        soft_density: flakes out of focus per megapixel, 0 to 2000.
        soft_size: diameter of the largest of them, pixels, 2 to 60.
        brightness: of a flake, gray, 0.5 to 1.
        veil: opacity of the smooth white-out at the farthest point, 0 to 1.
        distant: mean opacity of flakes too far to be told apart, a fine grain, 0 to 1.

    Returns:
        float32 (H, W, 3) in [0, 1]; equal to `image` when veil, distant and opacity are 0, or
        veil, distant and both densities.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "snow")
    check_numbers(
        "snow",
        BOUNDS,
        density=density,
        size=size,
        opacity=opacity,
        motion=motion,
        angle=angle,
        soft_density=soft_density,
        soft_size=soft_size,
        brightness=brightness,
        veil=veil,
        distant=distant,
    )
    fog = _focused(image.shape[:2], rng, density, size, opacity, motion, angle)
    fog += _out_of_focus(image.shape[:2], rng, soft_density, soft_size, opacity, motion, angle)
    if distant > 0:
        opaque = -np.log1p(-np.float32(min(distant, 0.995)))
        fog += opaque * grain(fog.shape, rng, motion=motion / FARTHEST, angle=angle)
    snowy = add_veil(image, rng, veil=veil, brightness=brightness)
    through = np.exp(-fog)[..., None]  # T
    return np.clip((snowy - np.float32(brightness)) * through + np.float32(brightness), 0.0, 1.0)


def _focused(
    shape: tuple[int, int],
    rng: np.random.Generator,
    density: float,
    size: float,
    opacity: float,
    motion: float,
    angle: float,
) -> np.ndarray:
    """-log T (H, W) of the flakes in focus: the farther one is, the smaller and the slower it looks."""
    centre = scatter(rng, shape, density, reach=size + motion)
    distance = np.cbrt(rng.uniform(1, FARTHEST**3, len(centre)))
    return draw_flakes(
        shape,
        rng,
        centre,
        radius=size / 2 / distance * rng.uniform(0.6, 1.0, len(distance)),
        opacity=opacity * rng.uniform(0.4, 1.0, len(distance)),
        motion=motion / distance,
        angle=angle,
        irregularity=0.2,
        softness=0.8,
    )


def _out_of_focus(
    shape: tuple[int, int],
    rng: np.random.Generator,
    density: float,
    size: float,
    opacity: float,
    motion: float,
    angle: float,
) -> np.ndarray:
    """-log T (H, W) of near flakes out of focus: the same light on a larger disc, so the larger, the fainter."""
    centre = scatter(rng, shape, density, reach=size + motion)
    soft = rng.uniform(0.4, 1.0, len(centre))
    return draw_flakes(
        shape,
        rng,
        centre,
        radius=size / 2 * soft,
        opacity=opacity * (0.7 - 0.5 * soft),
        motion=motion * soft,
        angle=angle,
        irregularity=0.05,
        softness=0.25,
    )


class Snow(Damage):
    """`snow` with its parameters drawn from ranges.

    Args:
        density: flakes in focus per megapixel, 0 to 50000.
        size: pixels, 0.5 to 20.
        opacity: 0 to 1.
        motion: pixels, 0 to 40.
        angle: degrees counter-clockwise from straight down, -90 to 90.
        soft_density: flakes out of focus per megapixel, 0 to 2000.
        soft_size: pixels, 2 to 60.
        brightness: 0.5 to 1.
        veil: 0 to 1.
        distant: 0 to 1.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(snow)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self,
        density: Range = (500.0, 8000.0),
        size: Range = (3.0, 10.0),
        opacity: Range = (0.7, 1.0),
        motion: Range = (0.0, 10.0),
        angle: Range = (-40.0, 40.0),
        soft_density: Range = (0.0, 150.0),
        soft_size: Range = (8.0, 30.0),
        brightness: Range = (0.85, 1.0),
        veil: Range = (0.0, 0.2),
        distant: Range = (0.0, 0.1),
        p: float = 0.5,
    ) -> None:
        super().__init__(
            p,
            density=density,
            size=size,
            opacity=opacity,
            motion=motion,
            angle=angle,
            soft_density=soft_density,
            soft_size=soft_size,
            brightness=brightness,
            veil=veil,
            distant=distant,
        )
