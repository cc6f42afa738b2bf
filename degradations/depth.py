"""Depth for photographs that come without: made-up scenes whose edges follow the picture's."""

from __future__ import annotations

import cv2
import numpy as np

COARSE = 4  # scenes are drawn on a grid this many times coarser and then guided to the pixels


def scene_depth(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Relative depth of a made-up scene: ground plane, upright objects, fractal relief.

    The scene is drawn at random and then filtered with the picture as the guide (He et al. 2010),
    so that edges of depth sit on edges of the image.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1], the guide.
        rng: draws the scene.

    Returns:
        float32 (H, W) in [0, 1]; 0 is the nearest point of the view and 1 the farthest.
    """
    height, width = image.shape[:2]
    size = (max(height // COARSE, 4), max(width // COARSE, 4))
    depth = _ground(size, rng)
    depth += np.float32(rng.uniform(0, 0.3)) * fractal(size, rng)
    depth = np.minimum(depth, _objects(size, rng))
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _unit(guided_filter(gray, depth, radius=max(1, min(size) // 12), eps=1e-3))


def fractal(size: tuple[int, int], rng: np.random.Generator, octaves: int = 4) -> np.ndarray:
    """Smooth random relief: octaves of noise, each twice as fine and half as high.

    Args:
        size: (H, W).
        rng: draws the noise.
        octaves: how many, at least 1; the first has 2 x 2 cells.

    Returns:
        float32 (H, W) in [0, 1].
    """
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        noise = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return _unit(total)


def guided_filter(guide: np.ndarray, source: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """Smooth `source` where `guide` is smooth and keep it sharp where the guide has edges.

    In each window source is fitted by a * guide + b; the fits are averaged (He, Sun and Tang,
    "Guided image filtering", ECCV 2010, eq. 5, 6 and 8). A source coarser than the guide is fitted
    at its own size and the fits are enlarged (He and Sun, "Fast guided filter", 2015).

    Args:
        guide: float32 (H, W) in [0, 1].
        source: float32 (h, w), no larger than the guide.
        radius: of the square windows, pixels of the source, at least 1.
        eps: variance of the guide below which a window counts as smooth.

    Returns:
        float32 (H, W).
    """
    box = (2 * radius + 1, 2 * radius + 1)
    small = cv2.resize(guide, source.shape[::-1], interpolation=cv2.INTER_AREA)
    mean_guide, mean_source = cv2.blur(small, box), cv2.blur(source, box)
    covariance = cv2.blur(small * source, box) - mean_guide * mean_source
    variance = cv2.blur(small * small, box) - mean_guide * mean_guide
    a = covariance / (variance + np.float32(eps))
    b = mean_source - a * mean_guide
    fit = cv2.blur(cv2.merge([a, b]), box)
    fit = cv2.resize(fit, guide.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return fit[..., 0] * guide + fit[..., 1]


def _ground(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Depth of a plane under a camera: 1 / (distance below the horizon), far (1) above it."""
    height, width = size
    horizon = rng.uniform(-1.0, 0.7)  # of the picture's height; below 0 lies outside the view
    tilt = rng.normal(0, 0.1)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    below = np.maximum(y - np.float32(horizon) + np.float32(tilt) * x, np.float32(0.02))
    nearest = below.max()
    # Where the picture ends above the horizon the scene does too: sky or a far wall.
    return np.minimum(np.float32(0.15) * nearest / below, np.float32(1)).astype(np.float32)


def _objects(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Depth of upright, fronto-parallel things (1 where there is none): super-ellipses."""
    height, width = size
    count = int(rng.integers(0, 7))
    y = np.linspace(0, 1, height, dtype=np.float32)[None, :, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, None]
    draw = rng.uniform(0, 1, (6, count, 1, 1)).astype(np.float32)
    power = 2 + 6 * draw[4]  # 2 is an ellipse, 8 nearly a rectangle
    across = np.abs((x - draw[0]) / (0.05 + 0.25 * draw[2]))
    up = np.abs((y - draw[1]) / (0.08 + 0.4 * draw[3]))
    inside = across**power + up**power < 1
    depth = np.where(inside, 0.1 + 0.8 * draw[5], np.float32(1.5))
    return depth.min(axis=0, initial=1.5).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    """Shift and scale to [0, 1]; zeros for a constant."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return np.zeros_like(values)
    return (values - np.float32(low)) * np.float32(1 / (high - low))
