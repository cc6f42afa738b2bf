"""Outlines of leaves for procedural pictures, and their antialiased masks."""

from __future__ import annotations

import math

import cv2
import numpy as np

SHAPES = ("ellipse", "polygon", "rectangle", "blob", "bar", "strokes", "grid")
_SHIFT = 4  # bits of a pixel's fraction in OpenCV's drawing
_LEAST_DETAIL = 9  # pixels of radius; what is smaller shows no strokes or boxes
_CORNERS = np.array([[[-1, -1], [1, -1], [1, 1], [-1, 1]]], float)


def draw_shape(rng: np.random.Generator, shape: str, radius: float) -> np.ndarray:
    """Return a leaf's polygons about the origin: float64 (polygons, corners, 2), x, y in pixels.

    `shape` is one of SHAPES. The area is near that of a disc of `radius` pixels for full shapes and
    less for bars, strokes and grids. ValueError for any other shape.
    """
    if shape in ("strokes", "grid") and radius < _LEAST_DETAIL:
        shape = "ellipse"
    if shape == "ellipse":
        polygons = _ellipse(rng)
    elif shape == "polygon":
        polygons = _star(rng)
    elif shape == "rectangle":
        aspect = math.exp(rng.uniform(-0.45, 0.45))
        polygons = _CORNERS * (0.9 * aspect, 0.9 / aspect)
    elif shape == "blob":
        polygons = _blob(rng)
    elif shape == "bar":
        polygons = _CORNERS * (rng.uniform(1.5, 4), rng.uniform(0.03, 0.25))
    elif shape == "strokes":
        polygons = _strokes(rng)
    elif shape == "grid":
        polygons = _grid(rng)
    else:
        raise ValueError(f"shape: expected one of {', '.join(SHAPES)}; got {shape!r}")
    # What people build stands upright or lies flat more often than not.
    upright = shape != "blob" and rng.random() < 0.4
    angle = rng.normal(0, 0.03) if upright else rng.uniform(0, 2 * math.pi)
    x, y = polygons[..., 0] * radius, polygons[..., 1] * radius
    cos, sin = math.cos(angle), math.sin(angle)
    turned = np.empty_like(polygons)
    turned[..., 0] = x * cos - y * sin
    turned[..., 1] = x * sin + y * cos
    return turned


def draw_mask(polygons: np.ndarray, center: tuple[float, float], size: int) -> tuple[slice, slice, np.ndarray] | None:
    """Draw (polygons, corners, 2) at `center` (x, y in pixels) of a picture `size` pixels square.

    Returns (rows, columns, coverage), coverage float32 (h, w) in [0, 1] over that window, or None
    when the leaf lies outside. Where two polygons overlap there is a hole.
    """
    placed = polygons + center
    low_x, low_y = (max(math.floor(v) - 1, 0) for v in placed.min(axis=(0, 1)).tolist())
    high_x, high_y = (min(math.ceil(v) + 2, size) for v in placed.max(axis=(0, 1)).tolist())
    if high_x <= low_x or high_y <= low_y:
        return None
    mask = np.zeros((high_y - low_y, high_x - low_x), np.uint8)
    fixed = np.rint((placed - (low_x, low_y)) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, list(fixed), 255, cv2.LINE_AA, _SHIFT)
    coverage = mask.astype(np.float32) * np.float32(1 / 255)
    return slice(low_y, high_y), slice(low_x, high_x), coverage


def _circle(count: int) -> np.ndarray:
    return np.arange(count) * (2 * math.pi / count)


def _round(angles: np.ndarray, radii: np.ndarray | float, aspect: float) -> np.ndarray:
    """One polygon through points at these angles and radii, stretched."""
    polygon = np.empty((1, len(angles), 2))
    polygon[0, :, 0] = np.cos(angles) * radii * aspect
    polygon[0, :, 1] = np.sin(angles) * radii / aspect
    return polygon


def _ellipse(rng: np.random.Generator) -> np.ndarray:
    return _round(_circle(32), 1.0, math.exp(abs(rng.normal(0, 0.2))))


def _star(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(3, 8))
    angles = np.sort(_circle(count) + rng.uniform(0, 4.5 / count, count))
    return _round(angles, rng.uniform(0.7, 1.4, count), 1.0)


def _blob(rng: np.random.Generator) -> np.ndarray:
    angles = _circle(48)
    orders = np.arange(2, 9)
    amplitudes = rng.normal(0, 0.45, 7) / orders**1.2
    phases = rng.uniform(0, 2 * math.pi, 7)
    bumps = (amplitudes * np.cos(angles[:, None] * orders + phases)).sum(axis=1)
    return _round(angles, np.clip(1 + bumps, 0.15, 2), math.exp(rng.normal(0, 0.3)))


def _strokes(rng: np.random.Generator) -> np.ndarray:
    """Rows of small signs, each of three strokes: writing, or twigs."""
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(3, 9))
    pitch = 2.4 / columns
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    at = np.stack([column - (columns - 1) / 2, (row - (rows - 1) / 2) * 1.6], axis=-1) * pitch
    at = np.repeat(at.reshape(-1, 2), 3, axis=0)
    ends = rng.integers(-1, 2, (2, len(at), 2)) * (pitch * 0.38, pitch * 0.6)
    along = ends[1] - ends[0]
    length = np.sqrt((along**2).sum(axis=1, keepdims=True))
    along = np.where(length > 0, along / np.maximum(length, 1e-9), (1.0, 0.0))
    side = along[:, ::-1] * (-1, 1) * (pitch * rng.uniform(0.05, 0.13))
    start, end = at + ends[0], at + ends[1]
    return np.stack([start - side, end - side, end + side, start + side], axis=1)


def _grid(rng: np.random.Generator) -> np.ndarray:
    """Equal boxes in rows and columns: windows, fences, tiles."""
    rows, columns = int(rng.integers(1, 8)), int(rng.integers(2, 10))
    aspect = math.exp(rng.normal(0, 0.3))
    pitch = np.array([aspect, 1 / aspect]) * (3.0 / max(rows, columns))
    box = _CORNERS * (pitch * rng.uniform(0.25, 0.85, 2) / 2)
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    at = np.stack([column - (columns - 1) / 2, row - (rows - 1) / 2], axis=-1) * pitch
    return at.reshape(-1, 1, 2) + box
