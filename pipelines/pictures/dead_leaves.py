"""Procedural pictures with the statistics of photographs: dead leaves.

Opaque shapes of power-law sizes cover one another (Lee, Mumford & Huang 2001, "Occlusion models for
natural images"); restoration networks learn from such pictures nearly as well as from photographs
(Achddou, Gousseau & Ladjal 2021, "Synthetic images as a regularity prior for image restoration
neural networks"). Beyond discs of one colour, these leaves have textures, shading, shadows and many
outlines, lie before smooth skies, and some are out of focus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.pictures.leaf_shapes import SHAPES, draw_mask, draw_shape
from pipelines.pictures.leaf_textures import TEXTURES, draw_texture, fractal

_MOST_LEAVES = 2400  # a bound on time; about what a picture of 512 pixels asks for
_MARGIN = 0.08  # of the side; leaves centred that far outside still reach in
# Chroma directions that keep luminance: blue to yellow, where nature varies most, and green to red.
_BLUE_YELLOW = np.array([0.5, 0.15, -1.9])
_GREEN_RED = np.array([1.0, -0.45, 0.35])
_GRAY = np.ones(3)


@dataclass(frozen=True)
class _Palette:
    """The colours of one picture."""

    brightness: float  # mean luminance, 0 to 1
    contrast: float  # deviation of luminance between leaves
    tints: np.ndarray  # (n, 3): colour relative to luminance 1
    places: np.ndarray  # (8, 8): luminance of a place, in deviations; neighbours are alike

    def draw(self, rng: np.random.Generator, places: np.ndarray) -> np.ndarray:
        """Colours float32 (n, 3) in [0, 1] of what lies at `places` (n, 2), x and y from 0 to 1."""
        column, row = np.clip((places * 8).astype(int), 0, 7).T
        level = 0.6 * self.places[row, column] + 0.8 * rng.standard_normal(len(places))
        luminance = np.clip(self.brightness + self.contrast * level, 0.01, 0.99)
        tint = self.tints[rng.integers(len(self.tints), size=len(places))]
        jitter = rng.normal(0, 0.03, (len(places), 3))
        return np.clip(luminance[:, None] * (tint + jitter), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class _Leaf:
    """One shape and how it looks."""

    shape: str
    radius: float  # pixels
    center: tuple[float, float]  # x, y in pixels
    color: np.ndarray  # float32 (3,)
    texture: int
    strength: float  # deviation of the texture about light 1
    slope: tuple[float, float]  # light gained from the middle to the lower and right edge
    shadow: float  # light it takes from what it lies on


def draw_dead_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a square picture of `size` pixels: float32 (size, size, 3) RGB in [0, 1].

    Equal states of `rng` give equal pictures. ValueError when `size` is below 16.
    """
    if size < 16:
        raise ValueError(f"size: expected 16 pixels or more, got {size}")
    palette = _draw_palette(rng)
    kinds = rng.choice(len(TEXTURES), 5, replace=False)
    textures = [draw_texture(rng, TEXTURES[kind], size) for kind in kinds]
    image = _draw_sky(rng, palette, size)  # (3, H, W) from here on: much faster to work on
    leaves = _draw_leaves(rng, palette, len(textures), size)
    in_focus = int(len(leaves) * rng.uniform(0.3, 0.9)) if rng.random() < 0.3 else -1
    for index, leaf in enumerate(leaves):
        if index == in_focus:  # what lies behind is far away
            _blur(image, rng.uniform(0.8, 5))
        _lay(rng, image, leaf, textures)
    _expose(rng, image)
    return np.ascontiguousarray(np.clip(image, 0, 1).transpose(1, 2, 0))


def _draw_palette(rng: np.random.Generator) -> _Palette:
    cast = rng.laplace(0, 0.05) * _BLUE_YELLOW + rng.laplace(0, 0.02) * _GREEN_RED
    count = int(rng.integers(3, 8))
    vividness = math.exp(rng.normal(math.log(0.09), 0.6))
    tints = (
        _GRAY
        + cast
        + rng.laplace(0, vividness, (count, 1)) * _BLUE_YELLOW
        + rng.laplace(0, vividness * 0.8, (count, 1)) * _GREEN_RED
    )
    return _Palette(
        brightness=rng.uniform(0.2, 0.68),
        contrast=rng.uniform(0.1, 0.28),
        tints=np.clip(tints, 0.1, 2.2),
        places=fractal(rng, 8, 1.5).astype(np.float64),
    )


def _draw_sky(rng: np.random.Generator, palette: _Palette, size: int) -> np.ndarray:
    """The background: a gradient between two colours, with soft clouds."""
    top, bottom = palette.draw(rng, np.array([[0.5, 0.0], [0.5, 1.0]]))
    axis = np.linspace(0, 1, size, dtype=np.float32)
    mix = axis[:, None] + np.float32(rng.normal(0, 0.3)) * (axis - np.float32(0.5))
    clouds = fractal(rng, size, rng.uniform(1.4, 2.2)) * np.float32(abs(rng.normal(0, 0.04)))
    return top[:, None, None] + (bottom - top)[:, None, None] * mix + clouds


def _draw_radii(rng: np.random.Generator, size: int) -> np.ndarray:
    """Radii with density r^-3 between two bounds, as many as cover the picture a few times."""
    least = math.exp(rng.uniform(math.log(2.5), math.log(9)))
    most = max(size * rng.uniform(0.15, 0.45), 2 * least)
    mean_area = math.pi * 2 * math.log(most / least) / (least**-2 - most**-2)
    wanted = rng.uniform(1.0, 4.0) * size**2 / mean_area
    return rng.uniform(most**-2, least**-2, int(min(wanted, _MOST_LEAVES)) + 1) ** -0.5


def _draw_leaves(rng: np.random.Generator, palette: _Palette, textures: int, size: int) -> list[_Leaf]:
    """All leaves of a picture, the lowest first; drawn together, as one by one takes longer."""
    radii = _draw_radii(rng, size)
    count = len(radii)
    shapes = rng.choice(len(SHAPES), count, p=rng.dirichlet(np.full(len(SHAPES), 0.7)))
    places = rng.uniform(-_MARGIN, 1 + _MARGIN, (count, 2))
    if rng.random() < 0.35:  # over the horizon is sky, and there is little in it
        horizon = rng.uniform(0.15, 0.7)
        moved = (places[:, 1] < horizon) & (rng.random(count) < 0.97)
        places[moved, 1] = rng.uniform(horizon, 1 + _MARGIN, count)[moved]
    strengths = np.exp(rng.normal(math.log(0.13), 0.8, count)) * (rng.random(count) < 0.9)
    shadows = rng.uniform(0.2, 0.7, count) * (rng.random(count) < 0.4) * (radii > 12)
    columns = (
        [SHAPES[shape] for shape in shapes],
        radii.tolist(),
        (places * size).tolist(),
        palette.draw(rng, places),
        rng.integers(textures, size=count).tolist(),
        strengths.tolist(),
        (rng.normal(0, 0.2, (count, 2)) * (radii > 5)[:, None]).tolist(),
        shadows.tolist(),
    )
    return [_Leaf(*row) for row in zip(*columns, strict=True)]


def _lay(rng: np.random.Generator, image: np.ndarray, leaf: _Leaf, textures: list[np.ndarray]) -> None:
    """Lay one leaf on `image`, (3, H, W), in place."""
    drawn = draw_mask(draw_shape(rng, leaf.shape, leaf.radius), leaf.center, image.shape[1])
    if drawn is None:
        return
    rows, columns, coverage = drawn
    window = image[:, rows, columns]
    if leaf.shadow:
        _cast_shadow(rng, window, coverage, leaf)
    height, width = coverage.shape
    light: np.ndarray | np.float32 = np.float32(1)
    if leaf.strength:
        texture = textures[leaf.texture]
        top = int(rng.integers(len(texture) - height + 1))
        left = int(rng.integers(len(texture) - width + 1))
        light = texture[top : top + height, left : left + width] * np.float32(leaf.strength) + light
    if any(leaf.slope):
        light = light + _ramp(height, leaf.slope[0])[:, None]
        light = light + _ramp(width, leaf.slope[1])
    # window = coverage * surface + (1 - coverage) * window
    window *= 1 - coverage
    lit = coverage * light
    for channel, color in zip(window, leaf.color, strict=True):
        channel += lit * color


def _ramp(length: int, rise: float) -> np.ndarray:
    """From -rise to rise in `length` steps, float32; a fraction of numpy.linspace's time."""
    step = 2 * rise / length
    return np.arange(length, dtype=np.float32) * np.float32(step) - np.float32(rise)


def _cast_shadow(rng: np.random.Generator, window: np.ndarray, coverage: np.ndarray, leaf: _Leaf) -> None:
    """Darken what lies beside a leaf, before it is laid, in place."""
    shift = rng.uniform(-0.15, 0.15, 2) * leaf.radius
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    shadow = cv2.warpAffine(coverage, move, coverage.shape[::-1])
    blur = min(leaf.radius * rng.uniform(0.05, 0.25), 12.0)
    shadow = cv2.GaussianBlur(shadow, (0, 0), blur)
    window *= 1 - np.float32(leaf.shadow) * shadow


def _blur(image: np.ndarray, sigma: float) -> None:
    """Blur (3, H, W) in place; sigma in pixels."""
    for channel in image:
        channel[:] = cv2.GaussianBlur(channel, (0, 0), sigma)


def _expose(rng: np.random.Generator, image: np.ndarray) -> None:
    """The camera, in place: uneven light over the scene, a lens that is never perfectly sharp."""
    light = fractal(rng, image.shape[1], 2.2) * np.float32(rng.uniform(0, 0.2))
    image *= np.maximum(1 + light, 0.2)
    if rng.random() < 0.4:
        _blur(image, rng.uniform(0.3, 0.7))
