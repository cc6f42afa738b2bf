"""Flakes of snow: drawn blobs with irregular rims, drawn out along their motion."""

from __future__ import annotations

import cv2
import numpy as np

from .trajectory import path_kernel

# Half sides, pixels, of the squares that flakes are drawn in.
PATCHES = (3, 7, 15, 30, 60, 96)
BLOCK = 1_000_000  # pixels of such squares at a time, for the memory's sake


def scatter(rng: np.random.Generator, shape: tuple[int, int], density: float, reach: float) -> np.ndarray:
    """Centres x, y (N, 2) of the flakes in a picture with a border of `reach` pixels."""
    height, width = shape
    count = rng.poisson(density * 1e-6 * (height + 2 * reach) * (width + 2 * reach))
    return rng.uniform(-reach, (width + reach, height + reach), (count, 2))


def draw_flakes(
    shape: tuple[int, int],
    rng: np.random.Generator,
    centre: np.ndarray,
    *,
    radius: np.ndarray,
    opacity: np.ndarray,
    motion: np.ndarray,
    angle: float,
    irregularity: float,
    softness: float,
) -> np.ndarray:
    """-log T (H, W), float32, of flakes of (N,) radii, opacities and motions at `centre` (N, 2), T their transparency.

    So what several let through, a product, is a sum.

    Two harmonics, each up to `irregularity` of the radius high, wave the rim; it fades over
    `softness` of the radius, and over a pixel at least.
    """
    fog = np.zeros(shape, np.float32)
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
                shape,
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
    return fog


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


def grain(size: tuple[int, int], rng: np.random.Generator, *, motion: float, angle: float) -> np.ndarray:
    """Fine texture of snow too far away to see flakes: float32 (H, W), at least 0, mean about 1."""
    noise: np.ndarray = cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), 0.7)
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
