"""Clean tiles to small crops, by (seed, number of the crop) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.data.rows import decode_levels, open_tiles, read_tiles

SEGMENT = 1024  # crops made by one read


def read_crops(path: Path | str, side: int, seed: int, start: int, stop: int) -> pa.Table:
    """Crops number `start` to `stop - 1` of the tiles in the file `path`, a row each.

    Columns: number (int64), pixels (side * side * 3 bytes: rows, columns, RGB). Every pass over the tiles has an order
    of its own.
    """
    numbers = range(start, stop)
    crops = cut_crops(path, side, seed, numbers)
    return pa.table(
        {
            "number": pa.array(numbers, pa.int64()),
            "pixels": pa.array([crop.tobytes() for crop in crops], pa.binary()),
        }
    )


def cut_crops(path: Path | str, side: int, seed: int, numbers: range) -> list[np.ndarray]:
    """The crops with these numbers, (side, side, 3) uint8, flipped and turned at random.

    Raises ValueError for a tile that is damaged or smaller than the crop.
    """
    rows = open_tiles(path).metadata.num_rows
    passes = {number // rows for number in numbers}
    orders = {each: np.random.default_rng([seed, each]).permutation(rows) for each in passes}
    wanted = [int(orders[number // rows][number % rows]) for number in numbers]
    places = np.unique(wanted)
    tiles = {place: _decode(path, row) for place, row in zip(places.tolist(), read_tiles(path, places), strict=True)}
    return [_cut(tiles[tile], side, [seed, number]) for tile, number in zip(wanted, numbers, strict=True)]


def _decode(path: Path | str, row: dict) -> np.ndarray:
    try:
        return decode_levels(row["clean"])
    except ValueError as error:
        raise ValueError(f"{path}: tile {row['image_id']} is damaged; remake it: `dvc repro -f -s prepare`") from error


def _cut(tile: np.ndarray, side: int, seed: list[int]) -> np.ndarray:
    height, width = tile.shape[:2]
    if min(height, width) < side:
        raise ValueError(f"crop: expected tiles of at least {side} x {side} pixels, got {height} x {width}")
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    turned = np.rot90(tile[top : top + side, left : left + side], int(rng.integers(4)))
    return np.ascontiguousarray(turned[:, :: int(rng.choice([1, -1]))])
