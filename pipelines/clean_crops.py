"""Clean tiles to small crops: a Ray stream that is a function of (seed, number of the crop) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data

from pipelines.schema import decode_levels, open_tiles, read_tiles

CHUNK = 1024  # crops made by one read


def crop_dataset(path: Path, side: int, seed: int, first: int, last: int) -> ray.data.Dataset:
    """Crops number `first` to `last - 1` of the tiles in the file `path`, as a Ray dataset made as it is consumed.

    Columns: number (int64), start (int64, = first), pixels (side * side * 3 bytes: rows, columns, RGB). Every pass over
    the tiles has an order of its own. Raises FileNotFoundError without the file.
    """
    open_tiles(path)
    starts = range(first, last, CHUNK)
    plan = ray.data.from_items(
        [{"start": start, "stop": min(start + CHUNK, last)} for start in starts], override_num_blocks=len(starts)
    )
    return plan.map_batches(_CutCrops(path.resolve(), side, seed, first), batch_size=1, batch_format="pandas")


class _CutCrops:
    """Turns the numbers of a chunk's crops into the crops, where Ray runs it."""

    def __init__(self, path: Path, side: int, seed: int, first: int) -> None:
        self.path, self.side, self.seed, self.first = path, side, seed, first

    def __call__(self, chunk) -> pa.Table:
        numbers = range(int(chunk["start"].iloc[0]), int(chunk["stop"].iloc[0]))
        crops = cut_crops(self.path, self.side, self.seed, numbers)
        return pa.table(
            {
                "number": pa.array(numbers, pa.int64()),
                "start": pa.array([self.first] * len(numbers), pa.int64()),
                "pixels": pa.array([crop.tobytes() for crop in crops], pa.binary()),
            }
        )


def cut_crops(path: Path, side: int, seed: int, numbers: range) -> list[np.ndarray]:
    """The crops with these numbers, (side, side, 3) uint8, flipped and turned at random.

    Raises ValueError for a tile that is damaged or smaller than the crop.
    """
    rows = open_tiles(path).metadata.num_rows
    orders = {number // rows: None for number in numbers}
    orders = {each: np.random.default_rng([seed, each]).permutation(rows) for each in orders}
    wanted = [int(orders[number // rows][number % rows]) for number in numbers]
    places = np.unique(wanted)
    tiles = {place: _decode(path, row) for place, row in zip(places.tolist(), read_tiles(path, places), strict=True)}
    return [_cut(tiles[tile], side, [seed, number]) for tile, number in zip(wanted, numbers, strict=True)]


def _decode(path: Path, row: dict) -> np.ndarray:
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
    turned = np.rot90(tile[top : top + side, left : left + side], rng.integers(4))
    return np.ascontiguousarray(turned[:, :: int(rng.choice([1, -1]))])
