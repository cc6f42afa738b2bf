"""Clean tiles to small crops, by (seed, number of the crop) alone."""

from __future__ import annotations

import numpy as np

from pipelines.data.row_groups import RowGroups
from pipelines.data.tiles import read_tiles
from pipelines.training.crops import cut_squares, draw_cuts

SEGMENT = 1024  # crops made by one read


def read_crops(tiles: RowGroups, side: int, seed: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """Crops number `start` to `stop - 1` of the tiles: `clean`, uint8 (crops, 3, side, side).

    Every pass over the tiles has an order of its own. Raises the errors of `read_tiles`, and ValueError for tiles
    smaller than the crop.
    """
    rows = int(tiles.rows.sum())
    passes = {number // rows for number in range(start, stop)}
    orders = {each: np.random.default_rng([seed, each]).permutation(rows) for each in passes}
    wanted = np.array([orders[number // rows][number % rows] for number in range(start, stop)])
    places, rank = np.unique(wanted, return_inverse=True)
    images = np.stack([row["clean"] for row in read_tiles(tiles, places)])
    generators = (np.random.default_rng([seed, number]) for number in range(start, stop))
    cuts = draw_cuts(generators, 1, images.shape[1:], side)
    return {"clean": np.ascontiguousarray(cut_squares(images, rank, cuts, side))}  # in the order that Arrow keeps
