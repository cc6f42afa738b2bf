"""What every damage checks before it starts: the image, and each parameter against its bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

import numpy as np

MIN_SIDE = 8  # pixels; below this the filters have no room and no photograph is meant

Bounds = Mapping[str, tuple[float, float]]
Range = float | tuple[float, float]  # a number, or two that one is drawn between


def check_image(image: np.ndarray, where: str) -> np.ndarray:
    """Return `image` C-contiguous (the same array when it is so already), or refuse it.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1], H and W at least 8.
        where: name of the function that got the image, for the message.

    Raises:
        ValueError: not an array of that type, shape or range (NaN included).
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.float32:
        got = getattr(image, "dtype", type(image).__name__)
        raise ValueError(
            f"{where}: expected a float32 image in [0, 1], got {got}; "
            "divide 8-bit images by 255 and convert them with .astype(np.float32)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"{where}: expected an image of shape (H, W, 3) with H, W >= {MIN_SIDE}, "
            f"got {image.shape}; stack a gray image three times, pad a small one"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"{where}: expected values in [0, 1], got {low:g} to {high:g}; clip or scale the image")
    return np.ascontiguousarray(image)


def check_numbers(where: str, bounds: Bounds, **values: float) -> None:
    """Refuse a value that is not a finite number within its inclusive bounds.

    Args:
        where: name of the function, for the message.
        bounds: parameter name -> (smallest, largest).
        **values: the parameters; each name must be in `bounds`.

    Raises:
        ValueError: a value is not a number, not finite, or out of bounds.
    """
    for name, value in values.items():
        low, high = bounds[name]
        if not _is_number(value) or not low <= value <= high:
            raise ValueError(f"{where}: {name}: expected a number from {low:g} to {high:g}, got {value!r}")


def check_range(where: str, value: Range, bounds: tuple[float, float]) -> tuple[float, float]:
    """Turn a number or a pair (lo, hi) into a pair of floats within `bounds`.

    Args:
        where: name of the parameter, for the message.
        value: one number, or two with lo <= hi.
        bounds: (smallest, largest) allowed, inclusive.

    Returns:
        (lo, hi); a single number comes back twice.

    Raises:
        ValueError: neither form, not finite, reversed, or out of bounds.
    """
    low, high = bounds
    pair: Any = (value, value) if _is_number(value) else value  # Any: it comes from a file
    if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 2:
        raise ValueError(f"{where}: expected a number or a pair (lo, hi), got {value!r}")
    if not all(_is_number(end) for end in pair):
        raise ValueError(f"{where}: expected numbers, got {value!r}")
    lo, hi = float(pair[0]), float(pair[1])
    if lo > hi:
        raise ValueError(f"{where}: expected lo <= hi, got {value!r}; swap the two")
    if lo < low or hi > high:
        raise ValueError(f"{where}: expected values from {low:g} to {high:g}, got {value!r}")
    return lo, hi


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
