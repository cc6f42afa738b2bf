"""sRGB values <-> linear light (IEC 61966-2-1), and what happens to light during an exposure."""

from __future__ import annotations

import cv2
import numpy as np

WHITE = np.float32(254.5 / 255)  # an sRGB value above was clipped by the camera


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values: v / 12.92 below 0.04045, ((v + 0.055) / 1.055)^2.4 above.

    Args:
        image: float32, at most three dimensions, in [0, 1].

    Returns:
        float32 of the same shape in [0, 1]; 0 stays 0, and 1 stays 1 up to float32 rounding.
    """
    # In place from here on: a pass over fresh memory costs more than a power.
    light = np.add(image, np.float32(0.055), order="C")
    light *= np.float32(1 / 1.055)
    _power(light, 2.4)
    np.multiply(image, np.float32(1 / 12.92), out=light, where=image <= 0.04045)
    return light


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """sRGB values of linear light; the inverse of `srgb_to_linear`.

    Args:
        light: float32, at most three dimensions; values outside [0, 1] are clipped first.

    Returns:
        float32 of the same shape in [0, 1].
    """
    light = np.clip(light, 0.0, 1.0)
    values = light.copy()
    _power(values, 1 / 2.4)
    values *= np.float32(1.055)
    values -= np.float32(0.055)
    np.multiply(light, np.float32(12.92), out=values, where=light <= 0.0031308)
    # In float32 the formula may give a last bit more than 1 for 1.
    return np.minimum(values, np.float32(1), out=values)


def _power(values: np.ndarray, exponent: float) -> None:
    """Raise a contiguous array to a power, in place."""
    flat = values.reshape(-1)
    cv2.pow(flat, exponent, dst=flat)


def unclip(image: np.ndarray, highlight: float) -> np.ndarray:
    """Linear light of sRGB values, with what the camera clipped raised to 1 + highlight.

    Args:
        image: float32 (H, W, 3) in [0, 1].
        highlight: at least 0.

    Returns:
        float32 (H, W, 3), at least 0.
    """
    light = srgb_to_linear(image)
    if highlight > 0:
        light[image >= WHITE] *= np.float32(1 + highlight)
    return light


def convolve(light: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Light that moves along a path: convolution with the share of the exposure spent at each place.

    Args:
        light: float32 (H, W, C); mirrored beyond its edges.
        kernel: float32, odd sides, sum 1.

    Returns:
        float32 of the shape of `light`.
    """
    # OpenCV correlates; a path is a convolution.
    return cv2.filter2D(light, -1, kernel[::-1, ::-1].copy(), borderType=cv2.BORDER_REFLECT_101)
