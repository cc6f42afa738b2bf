"""Snow: flakes of many sizes at many distances, some out of focus, and the veil behind them."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, check_image, check_numbers
from .haze import add_veil
from .trajectory import path_kernel
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
# Half sides, pixels, of the squares that flakes are drawn in.
PATCHES = (3, 7, 15, 30, 60, 96)
BLOCK = 1_000_000  # pixels of such squares at a time, for the memory's sake


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
    fog = np.zeros(image.shape[:2], np.float32)  # minus log of T: products become sums
    centre = _places(rng, image, density, reach=size + motion)
    distance = np.cbrt(rng.uniform(1, FARTHEST**3, len(centre)))
    _draw(
        fog,
        rng,
        centre,
        radius=size / 2 / distance * rng.uniform(0.6, 1.0, len(distance)),
        opacity=opacity * rng.uniform(0.4, 1.0, len(distance)),
        motion=motion / distance,
        angle=angle,
        irregularity=0.2,
        softness=0.8,
    )
    centre = _places(rng, image, soft_density, reach=soft_size + motion)
    soft = rng.uniform(0.4, 1.0, len(centre))
    # The same light on a larger disc: the larger, the fainter.
    _draw(
        fog,
        rng,
        centre,
        radius=soft_size / 2 * soft,
        opacity=opacity * (0.7 - 0.5 * soft),
        motion=motion * soft,
        angle=angle,
        irregularity=0.05,
        softness=0.25,
    )
    if distant > 0:
        fog += _grain(fog.shape, rng, motion=motion / FARTHEST, angle=angle) * -np.log1p(
            -np.float32(min(distant, 0.995))
        )
    snowy = add_veil(image, rng, veil=veil, brightness=brightness)
    through = np.exp(-fog)[..., None]
    return np.clip((snowy - np.float32(brightness)) * through + np.float32(brightness), 0.0, 1.0)


def _places(rng: np.random.Generator, image: np.ndarray, density: float, reach: float) -> np.ndarray:
    """Centres x, y (N, 2) of the flakes in a picture with a border of `reach` pixels."""
    height, width = image.shape[:2]
    count = rng.poisson(density * 1e-6 * (height + 2 * reach) * (width + 2 * reach))
    return rng.uniform(-reach, (width + reach, height + reach), (count, 2))


def _draw(
    fog: np.ndarray,
    rng: np.random.Generator,
    centre: np.ndarray,
    *,
    radius: np.ndarray,
    opacity: np.ndarray,
    motion: np.ndarray,
    angle: float,
    irregularity: float,
    softness: float,
) -> None:
    """Add flakes of (N,) radii, opacities and motions at `centre` (N, 2) to `fog`, -log T (H, W).

    Two harmonics, each up to `irregularity` of the radius high, wave the rim; it fades over
    `softness` of the radius, and over a pixel at least.
    """
    tilt = np.radians(angle + rng.normal(0, 8, len(radius)))
    # Complex coefficients: |c| is a harmonic's height, its phase where it is highest.
    waves = rng.uniform(0, irregularity, (2, len(radius))) * np.exp(2j * np.pi * rng.uniform(0, 1, (2, len(radius))))
    rim = np.maximum(1.0, softness * radius)
    half = np.searchsorted(PATCHES, radius * (1 + np.abs(waves).sum(0)) + (motion + rim) / 2)
    for index, patch in enumerate(PATCHES):
        all_such = np.flatnonzero(half == index)
        together = BLOCK // (2 * patch + 1) ** 2
        for start in range(0, len(all_such), together):
            some = all_such[start : start + together]
            alpha, cells = _patches(
                fog.shape,
                patch,
                centre[some],
                radius[some],
                motion[some],
                tilt[some],
                waves[:, some],
                rim[some],
            )
            alpha *= opacity[some, None, None].astype(np.float32)
            seen = (cells >= 0) & (alpha > 0)
            # A flake is never quite opaque, else the logarithm has no end.
            np.add.at(fog.reshape(-1), cells[seen], -np.log1p(-np.minimum(alpha[seen], np.float32(0.995))))


def _patches(
    shape: tuple[int, int],
    patch: int,
    centre: np.ndarray,
    radius: np.ndarray,
    motion: np.ndarray,
    tilt: np.ndarray,
    waves: np.ndarray,
    rim: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Opacity 0 to 1 of N flakes on squares (N, S, S), and the squares' cells in the picture.

    A flake is a blob, its radius waved by harmonics of the angle, drawn out along its motion.
    Cells outside the picture are -1.
    """
    column, row = np.floor(centre).astype(np.int64).T
    offset = np.arange(-patch, patch + 1)
    at_x = column[:, None, None] + offset[None, None]  # (N, 1, S)
    at_y = row[:, None, None] + offset[None, :, None]  # (N, S, 1)
    to_pixel = _column(centre[:, 0]) - at_x + 1j * (_column(centre[:, 1]) - at_y)
    # Turned so that the motion is the real axis.
    place = (to_pixel * _column(1j * np.exp(1j * tilt))).astype(np.complex64)
    stretch = _column(motion / 2).astype(np.float32)
    along = np.maximum(np.abs(place.real) - stretch, 0)
    distance = np.hypot(along, place.imag)
    edge = _column(radius).astype(np.float32)
    if patch > PATCHES[0]:  # a rim of such small flakes could not be seen
        edge = edge * _bulge(place, stretch / edge, waves)
    alpha = np.clip((edge - distance) / _column(rim).astype(np.float32) + np.float32(0.5), 0, 1)
    alpha *= alpha * (3 - 2 * alpha)  # smoothstep: no crease where the rim begins
    # Motion spreads the same light over a longer path.
    alpha *= _column(1 / (1 + motion / (8 * np.maximum(radius, 0.5)))).astype(np.float32)
    inside = (at_x >= 0) & (at_x < shape[1]) & (at_y >= 0) & (at_y < shape[0])
    return alpha, np.where(inside, at_y * shape[1] + at_x, -1)


def _bulge(place: np.ndarray, stretch: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Radius relative to the mean one in the direction of each complex place, (N, S, S)."""
    # Unstretched first, else the rim would break where the drawn-out part begins.
    direction = place.real / (1 + stretch) + 1j * place.imag
    direction /= np.maximum(np.abs(direction), np.float32(1e-3))
    second = direction * direction
    first_wave, second_wave = (_column(wave).astype(np.complex64) for wave in waves)
    return 1 + (first_wave * second + second_wave * second * direction).real


def _grain(size: tuple[int, int], rng: np.random.Generator, *, motion: float, angle: float) -> np.ndarray:
    """Fine texture of snow too far away to see flakes: float32 (H, W), at least 0, mean about 1."""
    noise = cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), 0.7)
    if motion >= 1:
        steps = np.linspace(-motion / 2, motion / 2, 2 * int(motion) + 1)
        tilt = np.radians(angle)
        line = np.stack([steps * np.sin(tilt), steps * np.cos(tilt)], axis=1)
        noise = cv2.filter2D(noise, -1, path_kernel(line), borderType=cv2.BORDER_REFLECT_101)
    noise *= np.float32(0.5 / max(float(noise.std()), 1e-6))
    return np.maximum(noise + 1, 0)


def _column(values: np.ndarray) -> np.ndarray:
    """(N,) to (N, 1, 1)."""
    return values[:, None, None]


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
        density=(500.0, 8000.0),
        size=(3.0, 10.0),
        opacity=(0.7, 1.0),
        motion=(0.0, 10.0),
        angle=(-40.0, 40.0),
        soft_density=(0.0, 150.0),
        soft_size=(8.0, 30.0),
        brightness=(0.85, 1.0),
        veil=(0.0, 0.2),
        distant=(0.0, 0.1),
        p: float = 0.5,
    ):
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
