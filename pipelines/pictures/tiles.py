"""A picture becomes tiles: shrunk to each scale, cut on a grid, each tile measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ipt.pixels import to_levels
from pipelines.pictures.duplicates import perceptual_hash


@dataclass(frozen=True, eq=False)
class Tile:
    """A clean tile with what decides whether it is kept."""

    image_id: str
    source: str
    clean: np.ndarray  # uint8 (tile, tile, 3)
    code: int  # perceptual hash
    deviation: float  # standard deviation of its luminance in grey levels


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """The (height, width) of a picture of `size` at `scale` in (0, 1]; ValueError outside."""
    if not 0 < scale <= 1:
        raise ValueError(f"prepare.sources: scales: expected values above 0 up to 1, got {scale}")
    return round(size[0] * scale), round(size[1] * scale)


def starts(length: int, tile: int, stride: int) -> list[int]:
    """Where tiles start along a side: every `stride` pixels, and one flush with the far end.

    No pixel is left out while stride <= tile. All in pixels; empty when length < tile.
    """
    if length < tile:
        return []
    last = length - tile
    return sorted({*range(0, last, stride), last})


def count_tiles(size: tuple[int, int], scales: tuple[float, ...], tile: int, stride: int) -> int:
    """How many tiles `cut_tiles` makes of a picture of (height, width) `size`."""
    sides = [[len(starts(side, tile, stride)) for side in scaled_size(size, scale)] for scale in scales]
    return sum(down * across for down, across in sides)


def cut_tiles(
    image: np.ndarray, source: str, name: str, scales: tuple[float, ...], tile: int, stride: int
) -> Iterator[Tile]:
    """Yield the tiles of a float32 (H, W, 3) picture in [0, 1] at each scale, row by row.

    A scale at which the picture is smaller than a tile gives none. Shrinking averages areas, so a
    shrunk photograph is sharper and cleaner than the file was.
    """
    for scale in scales:
        height, width = scaled_size(image.shape[:2], scale)
        if min(height, width) < tile:
            continue
        shrunk = image
        if (height, width) != image.shape[:2]:
            shrunk = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        for y in starts(height, tile, stride):
            for x in starts(width, tile, stride):
                pixels = np.ascontiguousarray(shrunk[y : y + tile, x : x + tile])
                gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
                yield Tile(
                    image_id=f"{source}/{name}@{float(scale)}/x{x}y{y}",
                    source=source,
                    clean=to_levels(pixels),
                    code=perceptual_hash(pixels),
                    deviation=float(gray.std(dtype=np.float64) * 255),
                )
