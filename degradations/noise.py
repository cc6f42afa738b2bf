"""Noise: white Gaussian, and that of a camera sensor seen through its pipeline."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .light import linear_to_srgb, srgb_to_linear
from .transform import Damage

GAUSSIAN_BOUNDS: Bounds = {
    "sigma": (0.0, 255.0),
    "channel_spread": (0.0, 1.0),
    "spatial_spread": (0.0, 1.0),
}
SENSOR_BOUNDS: Bounds = {
    "shot": (0.0, 100.0),
    "read": (0.0, 100.0),
    "red_gain": (1.0, 4.0),
    "blue_gain": (1.0, 4.0),
}

# Bilinear demosaicing as filters on a plane that is zero where its colour was not measured.
GREEN_FILTER = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
RED_BLUE_FILTER = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


def gaussian_noise(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    sigma: float,
    channel_spread: float = 0.0,
    spatial_spread: float = 0.0,
) -> np.ndarray:
    """Add independent zero-mean Gaussian noise to every value: y = clip(x + n).

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: source of the noise.
        sigma: standard deviation before clipping, grey levels, 0 to 255.
        channel_spread: each channel's sigma is multiplied by a number drawn from
            [1 - spread, 1 + spread], 0 to 1.
        spatial_spread: sigma is multiplied by a smooth map over the picture that runs from
            1 - spread to 1 + spread, 0 to 1.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when sigma is 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "gaussian_noise")
    check_numbers(
        "gaussian_noise",
        GAUSSIAN_BOUNDS,
        sigma=sigma,
        channel_spread=channel_spread,
        spatial_spread=spatial_spread,
    )
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(sigma / 255)
    if channel_spread > 0:
        noise *= (1 + channel_spread * rng.uniform(-1, 1, 3)).astype(np.float32)
    if spatial_spread > 0:
        coarse = rng.uniform(-1, 1, (4, 4)).astype(np.float32)
        smooth = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        smooth = cv2.normalize(smooth, np.empty_like(smooth), 1 - spatial_spread, 1 + spatial_spread, cv2.NORM_MINMAX)
        noise *= smooth[..., None]
    noise += image
    return np.clip(noise, 0.0, 1.0, out=noise)


def sensor_noise(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    shot: float,
    read: float,
    red_gain: float = 2.0,
    blue_gain: float = 1.7,
) -> np.ndarray:
    """Add the noise of a Bayer sensor: Poisson-Gaussian in linear light, then demosaicing, sRGB.

    At a site of colour c the raw signal is x / gain_c and its noise has the variance
    shot^2 x / gain_c + read^2 (Foi et al. 2008; white balance and order of the pipeline as in
    Brooks et al. 2019). White balance multiplies it by gain_c, bilinear demosaicing spreads it
    over neighbours, so noise is correlated over pixels and, after sRGB, strongest in the shadows.
    Only the noise goes through the pipeline: the signal loses no sharpness.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: source of the noise and of the phase of the Bayer pattern.
        shot: standard deviation of the photon noise at white, linear grey levels, 0 to 100
            (255 / shot squared is the number of electrons at white).
        read: standard deviation of the electronics' noise, linear grey levels, 0 to 100.
        red_gain: white balance of red relative to green, 1 to 4.
        blue_gain: white balance of blue relative to green, 1 to 4.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when shot and read are 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "sensor_noise")
    check_numbers("sensor_noise", SENSOR_BOUNDS, shot=shot, read=read, red_gain=red_gain, blue_gain=blue_gain)
    if shot == 0 and read == 0:
        return image.copy()
    light = srgb_to_linear(image)
    sites = _bayer_sites(rng)
    gain = (np.float32(red_gain), np.float32(1), np.float32(blue_gain))
    raw = np.empty(image.shape[:2], np.float32)
    for place, channel in sites:
        np.divide(light[..., channel][place], gain[channel], out=raw[place])
    noise = rng.standard_normal(raw.shape, np.float32) * np.float32(read / 255)
    if shot > 0:
        electrons = (255 / shot) ** 2
        noise += rng.poisson(raw * np.float32(electrons)) / np.float32(electrons) - raw
    planes: np.ndarray = np.zeros((3, *raw.shape), np.float32)
    for place, channel in sites:
        np.multiply(noise[place], gain[channel], out=planes[channel][place])
    for channel, plane in enumerate(planes):
        kernel = GREEN_FILTER if channel == 1 else RED_BLUE_FILTER
        light[..., channel] += cv2.filter2D(plane, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return linear_to_srgb(light)


def _bayer_sites(rng: np.random.Generator) -> list[tuple[tuple[slice, slice], int]]:
    """The four sites of an RGGB sensor's cell, its corner at random: which pixels, and the channel that they measure
    (0 red, 1 green, 2 blue)."""
    row, column = (int(phase) for phase in rng.integers(2, size=2))
    return [
        ((slice(y, None, 2), slice(x, None, 2)), (y + row) % 2 + (x + column) % 2) for y in range(2) for x in range(2)
    ]


class GaussianNoise(Damage):
    """`gaussian_noise` with its parameters drawn from ranges.

    Args:
        sigma: grey levels, 0 to 255.
        channel_spread: 0 to 1.
        spatial_spread: 0 to 1.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(gaussian_noise)
    bounds: ClassVar[Bounds] = GAUSSIAN_BOUNDS

    def __init__(
        self, sigma: Range = (5.0, 50.0), channel_spread: Range = 0.0, spatial_spread: Range = 0.0, p: float = 0.5
    ) -> None:
        super().__init__(p, sigma=sigma, channel_spread=channel_spread, spatial_spread=spatial_spread)


class SensorNoise(Damage):
    """`sensor_noise` with its parameters drawn from ranges.

    Args:
        shot: at white, linear grey levels, 0 to 100.
        read: linear grey levels, 0 to 100.
        red_gain: white balance, 1 to 4.
        blue_gain: white balance, 1 to 4.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(sensor_noise)
    bounds: ClassVar[Bounds] = SENSOR_BOUNDS

    def __init__(
        self,
        shot: Range = (4.0, 28.0),
        read: Range = (0.5, 6.0),
        red_gain: Range = (1.9, 2.4),
        blue_gain: Range = (1.5, 1.9),
        p: float = 0.5,
    ) -> None:
        super().__init__(p, shot=shot, read=read, red_gain=red_gain, blue_gain=blue_gain)
