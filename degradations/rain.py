"""Rain: streaks of falling drops at many distances, and the veil that the farthest add up to."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .haze import add_veil
from .transform import Damage

BOUNDS: Bounds = {
    "density": (0.0, 50000.0),
    "length": (1.0, 300.0),
    "width": (0.5, 10.0),
    "brightness": (0.0, 1.0),
    "angle": (-90.0, 90.0),
    "jitter": (0.0, 45.0),
    "screen": (0.0, 1.0),
    "veil": (0.0, 1.0),
}

FARTHEST = 3.0  # times the distance of the nearest drop; what lies behind is the veil
WIDTH_LAYERS = (1.2, 1.75, 2.55)  # distances whose width stands for the drops around them
BLOCK = 2_000_000  # samples of streaks at a time, for the memory's sake
VEIL_BRIGHTNESS = 0.75  # of an overcast sky


def rain(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    density: float,
    length: float,
    width: float,
    brightness: float,
    angle: float = 0.0,
    jitter: float = 2.0,
    screen: float = 0.0,
    veil: float = 0.0,
) -> np.ndarray:
    """Let it rain: y = clip(x + R (1 - screen x)) over a veiled picture, R the streaks' light.

    Drops fill the view evenly (as many at a distance as its square says), and length and width
    of a streak fall with distance (Garg and Nayar 2007; additive model of Yang et al. 2017).

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the drops.
        density: streaks per megapixel, 0 to 50000 (Rain100L about 2500, Rain100H 15000).
        length: of the longest streaks, pixels, 1 to 300; those at the back have a third.
        width: of the nearest streaks at half their brightness, pixels, 0.5 to 10.
        brightness: light that the brightest streaks add, 0 to 1.
        angle: of the falling direction, degrees counter-clockwise from straight down, -90 to 90.
        jitter: standard deviation of a drop's own angle, degrees, 0 to 45.
        screen: 0 adds a streak's light (Rain100L), 1 lets it cover what lies behind.
        veil: opacity of the rain's accumulation at the farthest point, 0 to 1.

    Returns:
        float32 (H, W, 3) in [0, 1]; equal to `image` when veil is 0 and density or brightness is.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "rain")
    check_numbers(
        "rain",
        BOUNDS,
        density=density,
        length=length,
        width=width,
        brightness=brightness,
        angle=angle,
        jitter=jitter,
        screen=screen,
        veil=veil,
    )
    light = brightness * streak_layer(
        image.shape[:2],
        rng,
        density=density,
        length=length,
        width=width,
        angle=angle,
        jitter=jitter,
    )
    rainy = add_veil(image, rng, veil=veil, brightness=VEIL_BRIGHTNESS)
    light = light[..., None] * (1 - np.float32(screen) * rainy) if screen > 0 else light[..., None]
    return np.clip(rainy + light, 0.0, 1.0)


def streak_layer(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    density: float,
    length: float,
    width: float,
    angle: float,
    jitter: float,
) -> np.ndarray:
    """Light of many streaks on a black picture; parameters as in `rain`.

    Returns:
        float32 (H, W), at least 0; about 1 at the middle of the brightest streaks, more where
        streaks cross.
    """
    height, width_px = size
    reach = int(np.ceil(length / 2)) + 4  # drops centred outside may still reach in
    area = (height + 2 * reach) * (width_px + 2 * reach)
    count = int(rng.poisson(density * 1e-6 * area))
    # P(distance < z) grows with z^3: a view is a cone.
    distance = np.cbrt(rng.uniform(1, FARTHEST**3, count))
    streaks = length * rng.uniform(0.3, 1.0, count) / distance
    # Contrast varies as the drop's share of a pixel and its lighting do.
    strength = rng.uniform(0.3, 1.0, count) ** 2 * distance**-0.5
    x = rng.uniform(-reach, width_px + reach, count)
    y = rng.uniform(-reach, height + reach, count)
    tilt = np.radians(angle + jitter * rng.standard_normal(count))
    layer = np.argmin(np.abs(np.log(distance[:, None] / np.array(WIDTH_LAYERS))), axis=1)
    total = np.zeros(size, np.float32)
    for index, depth in enumerate(WIDTH_LAYERS):
        mine = layer == index
        # Half-brightness width of a Gaussian is 2.355 sigma; splatting itself blurs by 0.4 px.
        sigma = float(np.sqrt(max((width / depth / 2.355) ** 2 - 0.16, 0.04)))
        drops = np.stack([x, y, streaks, tilt, strength])[:, mine]
        parts = np.array_split(drops, 1 + int(drops[2].sum()) // BLOCK, axis=1)
        lines = sum((_splat(size, *part) for part in parts), np.zeros(size, np.float32))
        peak = np.sqrt(2 * np.pi * (sigma**2 + 0.16))
        total += cv2.GaussianBlur(lines, (0, 0), sigma) * np.float32(peak)
    return total


def _splat(
    size: tuple[int, int],
    x: np.ndarray,
    y: np.ndarray,
    length: np.ndarray,
    tilt: np.ndarray,
    strength: np.ndarray,
) -> np.ndarray:
    """Lines of one unit of light a pixel of length times `strength`, faded at their ends."""
    height, width = size
    wide, high = np.abs(np.sin(tilt)) * length / 2, np.abs(np.cos(tilt)) * length / 2
    near = (x > -1 - wide) & (x < width + wide) & (y > -1 - high) & (y < height + high)
    x, y, length, tilt, strength = (values[near] for values in (x, y, length, tilt, strength))
    samples = np.ceil(length).astype(np.int64) + 1
    first = np.repeat(np.cumsum(samples) - samples, samples)
    drops = np.stack(
        [
            x + 1,
            y + 1,
            np.sin(tilt) * length,
            np.cos(tilt) * length,
            strength * length / samples,
            1 / samples,
        ]
    ).astype(np.float32)
    at_x, at_y, fall_x, fall_y, weight, step = np.repeat(drops, samples, axis=1)
    along = (np.arange(len(first)) - first + np.float32(0.5)) * step - np.float32(0.5)
    at_x += along * fall_x
    at_y += along * fall_y
    # A drop passes a pixel at the middle for longest: full light there, none at the ends.
    weight *= 1 - 4 * along * along
    seen = (at_x >= 0) & (at_x < width + 1) & (at_y >= 0) & (at_y < height + 1)
    at_x, at_y, weight = at_x[seen], at_y[seen], weight[seen]
    right, down = at_x % 1, at_y % 1
    column, row = at_x.astype(np.int64), at_y.astype(np.int64)
    stride = width + 2
    cell = row * stride + column
    cells = np.concatenate([cell, cell + 1, cell + stride, cell + stride + 1])
    left_part, right_part = weight * (1 - right), weight * right
    weights = np.concatenate([left_part * (1 - down), right_part * (1 - down), left_part * down, right_part * down])
    canvas = np.bincount(cells, weights, minlength=(height + 2) * stride)
    return canvas.reshape(height + 2, stride)[1:-1, 1:-1].astype(np.float32)


class Rain(Damage):
    """`rain` with its parameters drawn from ranges.

    Args:
        density: streaks per megapixel, 0 to 50000.
        length: pixels, 1 to 300.
        width: pixels, 0.5 to 10.
        brightness: 0 to 1.
        angle: degrees counter-clockwise from straight down, -90 to 90.
        jitter: degrees, 0 to 45.
        screen: 0 to 1.
        veil: 0 to 1.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(rain)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self,
        density: Range = (1000.0, 8000.0),
        length: Range = (30.0, 150.0),
        width: Range = (1.5, 5.0),
        brightness: Range = (0.25, 1.0),
        angle: Range = (-30.0, 30.0),
        jitter: Range = (0.0, 4.0),
        screen: Range = (0.0, 0.3),
        veil: Range = (0.0, 0.05),
        p: float = 0.5,
    ) -> None:
        super().__init__(
            p,
            density=density,
            length=length,
            width=width,
            brightness=brightness,
            angle=angle,
            jitter=jitter,
            screen=screen,
            veil=veil,
        )
