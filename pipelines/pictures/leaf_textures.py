"""Gray textures for leaves: zero-mean fields that tell one surface from another."""

from __future__ import annotations

import math

import cv2
import numpy as np

TEXTURES = ("fractal", "fibres", "ridges", "grain", "stripes", "weave", "strokes", "speckle")
_WAVE = np.cos(np.arange(4096) * (2 * math.pi / 4096)).astype(np.float32)


def draw_texture(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Draw a texture of `kind`, one of TEXTURES: float32 (size, size), mean 0, deviation 1."""
    if kind == "fractal":
        field = fractal(rng, size, rng.uniform(0.3, 1.6))
    elif kind == "fibres":
        field = fractal(rng, size, rng.uniform(0.5, 1.4), rng.uniform(3, 12))
    elif kind == "ridges":
        field = -np.abs(fractal(rng, size, rng.uniform(0.7, 1.6), math.exp(rng.uniform(0, 1.5))))
    elif kind == "grain":
        field = rng.standard_normal((size, size), np.float32)
        field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.5, 1.5))
    elif kind == "stripes":
        field = _waves(rng, size)
    elif kind == "weave":
        field = np.maximum(_waves(rng, size), _waves(rng, size))
    elif kind == "strokes":
        field = _strokes(rng, size)
    elif kind == "speckle":
        field = fractal(rng, size, rng.uniform(0.3, 1.2))
        field = np.clip(field * rng.uniform(2, 8) + rng.uniform(-4, 4), -1, 1)
    else:
        raise ValueError(f"kind: expected one of {', '.join(TEXTURES)}; got {kind!r}")
    return _standard(field)


def fractal(rng: np.random.Generator, size: int, slope: float, stretch: float = 1.0) -> np.ndarray:
    """Gaussian noise of amplitude spectrum 1 / f^slope: float32 (size, size), mean 0, deviation 1.

    `stretch` above 1 draws it out along a random direction by that factor. Periodic in both axes.
    """
    angle = rng.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    y = np.fft.fftfreq(size)[:, None] * size
    x = np.fft.rfftfreq(size)[None] * size
    squared = ((cos * x + sin * y) * stretch) ** 2 + (cos * y - sin * x) ** 2
    squared[0, 0] = np.inf  # no mean
    amplitude = (squared ** (-slope / 2)).astype(np.float32)
    spectrum = rng.standard_normal((*amplitude.shape, 2), np.float32).view(np.complex64)[..., 0]
    return _standard(np.fft.irfft2(spectrum * amplitude, s=(size, size)).astype(np.float32))


def _standard(field: np.ndarray) -> np.ndarray:
    mean = field.mean(dtype=np.float64)
    deviation = field.std(dtype=np.float64)
    scale = 1 / deviation if deviation > 1e-6 else 0.0
    return (field - np.float32(mean)) * np.float32(scale)


def _waves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Parallel waves, straight or bent, soft or hard."""
    period = math.exp(rng.uniform(math.log(3), math.log(40)))
    angle = rng.uniform(0, math.pi) if rng.random() < 0.6 else rng.choice([0, math.pi / 2])
    axis = np.arange(size, dtype=np.float32) / np.float32(period)
    phase = axis * np.float32(math.cos(angle)) + (axis * np.float32(math.sin(angle)))[:, None]
    if rng.random() < 0.6:
        phase = phase + fractal(rng, size, 2.0) * np.float32(rng.uniform(0.05, 1.5))
    wave = _WAVE[(phase * 4096).astype(np.int32) & 4095]
    hardness = rng.choice([1.0, 3.0, 8.0]) * min(1.0, period / 8)
    return np.clip(wave * np.float32(max(hardness, 1.0)) + np.float32(rng.uniform(-0.6, 0.6)), -1, 1)


def _strokes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Short strokes over one another in about one direction: grass, fur, straw."""
    field = np.full((size, size), 128, np.uint8)
    length = rng.uniform(6, 40)
    count = int(min(1.5 * size * size / length, 12000))
    starts = rng.uniform(-length, size + length, (count, 2))
    angles = rng.uniform(0, 2 * math.pi) + rng.normal(0, rng.uniform(0.1, 0.7), count)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ends = starts + directions * (length * rng.uniform(0.5, 1.5, (count, 1)))
    lines = np.rint(np.stack([starts, ends], axis=1) * 16).astype(np.int32)
    levels = np.clip(rng.normal(128, 45, count), 0, 255).astype(int)
    for line, level in zip(lines, levels.tolist(), strict=True):
        cv2.line(field, line[0], line[1], level, 1, cv2.LINE_AA, 4)
    return field.astype(np.float32)
