"""Low light: too short an exposure, the tone curve and colour of the dark, and the noise that shows there."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .light import linear_to_srgb, srgb_to_linear
from .noise import sensor_noise
from .transform import Damage

BOUNDS: Bounds = {
    "stops": (0.0, 8.0),
    "gamma": (1.0, 3.0),
    "cast": (0.0, 0.5),
    "shot": (0.0, 100.0),
    "read": (0.0, 100.0),
}


def low_light(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    stops: float,
    gamma: float = 1.0,
    cast: float = 0.0,
    shot: float = 0.0,
    read: float = 0.0,
) -> np.ndarray:
    """Take the picture with too little light: y = n(c 2^-stops x^gamma) in linear light, n the sensor's noise.

    The curve b (a x)^gamma of Lv et al. 2021 on linear light, with `sensor_noise` after it: the sensor stays what it
    is, so the less light falls on it, the more its noise shows.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the cast and the noise.
        stops: of exposure that are missing, 0 to 8; each halves the light.
        gamma: exponent on linear light; above 1 the shadows close, 1 to 3.
        cast: each channel is multiplied by a number drawn from [1 - cast, 1], 0 to 0.5.
        shot: as in `sensor_noise`, at white of the full exposure, linear grey levels, 0 to 100.
        read: as in `sensor_noise`, linear grey levels, 0 to 100.

    Returns:
        float32 (H, W, 3) in [0, 1]; equal to `image` up to rounding when stops is 0 and gamma 1 and the rest 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "low_light")
    check_numbers("low_light", BOUNDS, stops=stops, gamma=gamma, cast=cast, shot=shot, read=read)
    light = srgb_to_linear(image)
    if gamma != 1:
        light **= np.float32(gamma)
    light *= (2.0**-stops * (1 - cast * rng.uniform(0, 1, 3))).astype(np.float32)
    dark = linear_to_srgb(light)
    return sensor_noise(dark, rng, shot=shot, read=read) if shot > 0 or read > 0 else dark


class LowLight(Damage):
    """`low_light` with its parameters drawn from ranges.

    Args:
        stops: 0 to 8.
        gamma: 1 to 3.
        cast: 0 to 0.5.
        shot: linear grey levels at white of the full exposure, 0 to 100.
        read: linear grey levels, 0 to 100.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(low_light)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self,
        stops: Range = (1.0, 4.0),
        gamma: Range = (1.0, 1.5),
        cast: Range = (0.0, 0.2),
        shot: Range = (1.0, 8.0),
        read: Range = (0.2, 2.0),
        p: float = 0.5,
    ) -> None:
        super().__init__(p, stops=stops, gamma=gamma, cast=cast, shot=shot, read=read)
