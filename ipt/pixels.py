"""Pixel values: float32 in [0, 1] inside, 8- or 16-bit levels outside."""

from __future__ import annotations

import numpy as np

LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def to_unit(image: np.ndarray) -> np.ndarray:
    """Levels of 8 or 16 bits, or float32 already, as float32 in [0, 1]."""
    if image.dtype == np.float32:
        return image.copy()  # torch takes neither reversed nor read-only memory
    return image.astype(np.float32) / LEVELS[image.dtype]


def from_unit(image: np.ndarray, dtype: np.dtype | type[np.generic]) -> np.ndarray:
    """float32, clipped to [0, 1], as `dtype`, rounded; the inverse of `to_unit`."""
    clipped = image.clip(0, 1)
    if dtype == np.float32:
        return clipped
    return np.rint(clipped * LEVELS[np.dtype(dtype)]).astype(dtype)


def to_levels(image: np.ndarray) -> np.ndarray:
    """Round an image in [0, 1] to uint8 grey levels; values outside are clipped."""
    return image if image.dtype == np.uint8 else from_unit(image, np.uint8)
