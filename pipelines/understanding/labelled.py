"""Tiles with the name of their damage, for the estimator: clean tiles made various, then degraded or left clean.

Photographs differ in more than their damage, and the default clean images are few: so tiles are shrunk, turned,
toned and sharpened before they are degraded, and stored as JPEG after, as pictures are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from degradations.recipe import degrade
from ipt.pixels import to_levels, to_unit
from pipelines.data.drawings import draw
from pipelines.data.metrics import psnr

CLEAN_SHARE = 0.3  # of the tiles
DRAWN = 0.2  # of the clean ones
DARK, BRIGHT = 0.12, 0.1  # of the clean ones
STORED = 0.5  # of all as JPEG


@dataclass(frozen=True)
class Damage:
    """What a labelled tile is made of."""

    recipes: Sequence[list]  # of each task
    visible: float  # dB: damage that changes a tile less than this cannot be seen, and the tile counts as clean


def labelled_tile(clean: np.ndarray, side: int, damage: Damage, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A tile, float32 (side, side, 3), of a clean one, uint8 (H, W, 3), and its label: the task's place, or clean."""
    label = len(damage.recipes)
    if rng.random() < CLEAN_SHARE:
        tile = draw(rng, side).astype(np.float32) / 255 if rng.random() < DRAWN else _various(clean, side, rng)
        tile = _exposed(tile, rng)
    else:
        task = int(rng.integers(len(damage.recipes)))
        before = _various(clean, side, rng)
        tile, _ = degrade(before, damage.recipes[task], rng)
        label = task if psnr(tile, before) <= damage.visible else label
    return _stored(tile, rng), label


def _various(clean: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A square of a clean tile, perhaps shrunk, turned, in other tones, sharpened; float32 (side, side, 3)."""
    image = to_unit(clean)
    shorter = min(image.shape[:2])
    share = rng.uniform(max(side / shorter, 0.4), 1) if shorter > side else side / shorter
    height, width = (max(round(length * share), side) for length in image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    image = np.rot90(image[top : top + side, left : left + side], int(rng.integers(4)))
    image = _toned(image[:, :: int(rng.choice([1, -1]))], rng)
    if rng.random() < 0.3:
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.5))
        image = image + (image - soft) * rng.uniform(0.2, 1.2)
    return np.ascontiguousarray(image.clip(0, 1), np.float32)


def _toned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Perhaps another gamma, other saturation, or gray."""
    if rng.random() < 0.4:
        image = image ** rng.uniform(0.7, 1.4)
    gray = image.mean(2, keepdims=True)
    if rng.random() < 0.3:
        image = (gray + (image - gray) * rng.uniform(0, 1.6)).clip(0, 1)
    return np.repeat(gray, 3, axis=2) if rng.random() < 0.15 else image


def _exposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Perhaps very dark, or so bright that much of it is white."""
    chance = rng.random()
    if chance < DARK:
        return image * np.float32(rng.uniform(0.03, 0.4))
    if chance < DARK + BRIGHT:
        return (image * np.float32(rng.uniform(1.2, 2.5))).clip(0, 1)
    return image


def _stored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rounded to 8 bits, perhaps with the traces of a JPEG of quality 70 to 98."""
    levels = to_levels(image)
    if rng.random() < STORED:
        encoded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 99))])[1]
        levels = cast("np.ndarray", cv2.imdecode(encoded, cv2.IMREAD_COLOR))  # None for damage only
    return levels.astype(np.float32) / 255
