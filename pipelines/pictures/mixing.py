"""The order in which pictures are cut and their tiles written: drawn from the seed, the same wherever it is done."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from pipelines.pictures.sources import Picture

_SHUFFLE_TILES = 2048  # held in memory while mixing: about 100 MB of 128-pixel tiles

Tile = TypeVar("Tile")  # or where one lies


def shuffled(split: str, pictures: list[Picture], seed: int) -> tuple[list[Picture], np.random.Generator]:
    """The pictures of a split in random order, and what goes on drawing: for `mixed`."""
    rng = np.random.default_rng((seed, zlib.crc32(f"order {split}.parquet".encode())))
    return [pictures[index] for index in rng.permutation(len(pictures))], rng


def mixed(tiles: Iterable[Tile], rng: np.random.Generator) -> Iterator[Tile]:
    """Yield the tiles in random order, as far as a buffer of _SHUFFLE_TILES allows."""
    buffer: list[Tile] = []
    for tile in tiles:
        buffer.append(tile)
        if len(buffer) > _SHUFFLE_TILES:
            place = int(rng.integers(len(buffer)))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            yield buffer.pop()
    for place in rng.permutation(len(buffer)):
        yield buffer[place]
