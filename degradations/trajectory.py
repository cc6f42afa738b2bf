"""Paths of the image on the sensor during an exposure, and the kernels they leave."""

from __future__ import annotations

import math

import numpy as np

STEPS = 64  # of a path; enough for 40 px, since kernels interpolate between them


def hand_path(rng: np.random.Generator, *, length: float, nervousness: float) -> np.ndarray:
    """Path of the image on the sensor while a hand holds the camera, after Boracchi and Foi 2012.

    A particle whose velocity is disturbed by Gaussian pushes, pulled back to where it started,
    and now and then nearly reversed (a jerk), all in proportion to the nervousness.
    The mean of its points is the origin, so that blur along it shifts nothing: where in the path the
    middle of the exposure was, a blurred picture hardly tells, and a network that has to put the clean
    one there learns to leave blur alone.

    Args:
        rng: draws the path.
        length: longer side of the bounding box, pixels.
        nervousness: 0 to 1.

    Returns:
        float64 (64, 2): x, y in pixels at equal steps of time; their mean is 0, 0.
    """
    walk = hand_walk(rng, nervousness)
    path = np.stack([walk.real, walk.imag], axis=1)
    extent = float(np.ptp(path, axis=0).max())
    return (path - path.mean(axis=0)) * (length / extent)


def hand_walk(rng: np.random.Generator, nervousness: float) -> np.ndarray:
    """Unscaled path of `hand_path` as complex128 (64,), x the real part."""
    # Plain Python numbers below, since each step needs the last.
    pushes = rng.normal(0, 1, (STEPS, 2)) @ [1, 1j]
    jerks = rng.uniform(0, 1, STEPS) < 0.06 * nervousness
    turns = np.exp(1j * (np.pi + rng.uniform(-0.5, 0.5, STEPS)))
    place, velocity = 0j, complex(np.exp(2j * np.pi * rng.uniform()))
    path = []
    steps = zip(pushes.tolist(), jerks.tolist(), turns.tolist(), strict=True)
    for push, jerk, turn in steps:
        velocity += nervousness * (0.35 * push - 0.02 * place)
        if jerk:
            velocity *= turn
        # A hand's speed does not grow without end: every step has the same length.
        velocity /= max(abs(velocity), 1e-9)
        place += velocity
        path.append(place)
    return np.array(path)


def path_kernel(path: np.ndarray) -> np.ndarray:
    """Share of the exposure that a path spends over each pixel.

    Each point is split between its four nearest pixels, so paths finer than a pixel count.

    Args:
        path: float (N, 2): x, y in pixels from the centre.

    Returns:
        float32 (2 R + 1, 2 R + 1), sum 1; R is the largest coordinate, rounded up.
    """
    moments = np.linspace(0, len(path) - 1, 8 * len(path))
    x = np.interp(moments, np.arange(len(path)), path[:, 0])
    y = np.interp(moments, np.arange(len(path)), path[:, 1])
    radius = math.ceil(max(np.abs(x).max(), np.abs(y).max()))
    side = 2 * radius + 2  # one more for the right and lower neighbours of the last pixel
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, down = x - column, y - row
    cell = (row + radius) * side + column + radius
    kernel = np.zeros(side * side)
    for shift, weight in (
        (0, (1 - right) * (1 - down)),
        (1, right * (1 - down)),
        (side, (1 - right) * down),
        (side + 1, right * down),
    ):
        kernel += np.bincount(cell + shift, weight, minlength=side * side)[: side * side]
    kernel = kernel.reshape(side, side)[:-1, :-1]
    return (kernel / kernel.sum()).astype(np.float32)
