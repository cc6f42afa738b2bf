"""Clean tiles of a split as shards that the nodes of a cluster write straight into the shared storage.

Pictures are cut in heaps, on any node. The tiles of a heap wait in the memory of the node that cut them (Ray's object
store) while the driver, which sees a hash and a deviation of each, decides which are kept and in which order they come:
one after the other, as on one machine. A shard's tiles are then taken out of the heaps and written by one node. Where a
node dies Ray has another one do its part again.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import ray

from pipelines.cluster.spread import ahead, cpus, remote
from pipelines.cluster.storage import Patience, Storage
from pipelines.common.manifest import DataFile
from pipelines.data.rows import CLEAN_COLUMNS, describe, row_schema, write_rows
from pipelines.pictures.cutting import Counts, Sieve, cut_picture
from pipelines.pictures.mixing import mixed, shuffled
from pipelines.pictures.sources import Picture

if TYPE_CHECKING:
    from pipelines.common.params import Prepare

_SHARD_TILES = 2048  # 90 MB of 128-pixel tiles
_HEAP_TILES = 1024  # at most: what is cut at once, 50 MB
_HEAPS = 4  # for each CPU at least, where there are few pictures

Measure = tuple[str, int, float]  # of a tile: source, hash, deviation
Columns = dict[str, Any]  # of some tiles: image_id, source, clean


class TileShards:
    """The shards of one split, while they are made."""

    def __init__(self, split: str, settings: Prepare, seed: int, patience: Patience) -> None:
        """`patience` is with the storage that is written to, and with sources."""
        self._split, self._settings, self._seed, self._patience = split, settings, seed, patience
        self._sieve = Sieve(settings)
        self._cut = remote(cut_heap, num_returns=2, scheduling_strategy="SPREAD")
        self._take, self._write_shard = remote(take_tiles), remote(write_shard)
        self._heaps: dict[int, Any] = {}  # Columns in the object store, by number, while tiles of it are wanted
        self._wanted: dict[int, int] = {}  # how many

    def write(self, pictures: list[Picture]) -> tuple[list[DataFile], Counts]:
        """Have the nodes cut `pictures` and write what is kept.

        The rows, and what is counted, are those of one file; they depend on the split, the pictures, the settings and
        the seed, and not on who cuts how many at once.
        """
        order, rng = shuffled(self._split, pictures, self._seed)
        tiles = mixed(self._kept(order), rng)
        shards = iter(lambda: list(itertools.islice(tiles, _SHARD_TILES)), [])
        files = ahead(self._begin(number, shard) for number, shard in enumerate(shards))
        return [ray.get(file) for file in files], self._sieve.counts

    def _kept(self, pictures: list[Picture]) -> Iterator[tuple[int, int]]:
        """Heap and row of each tile that is kept, in the order in which they are cut."""
        begun = (self._cut.remote(heap, self._settings, self._patience) for heap in heaps(pictures))
        for number, (measures, columns) in enumerate(ahead(begun)):
            rows = [row for row, measure in enumerate(ray.get(measures)) if self._sieve.keeps(*measure)]
            if rows:
                self._heaps[number], self._wanted[number] = columns, len(rows)
            yield from ((number, row) for row in rows)

    def _begin(self, number: int, shard: list[tuple[int, int]]) -> Any:
        """Begin to write the tiles of a shard."""
        rows: dict[int, list[int]] = {}  # by heap, in the order in which they come
        for heap, row in shard:
            rows.setdefault(heap, []).append(row)
        pieces = [self._take.remote(self._heaps[heap], some) for heap, some in rows.items()]
        for heap, some in rows.items():
            self._wanted[heap] -= len(some)
            if not self._wanted[heap]:
                del self._heaps[heap], self._wanted[heap]
        places = {heap: place for place, heap in enumerate(rows)}
        name, order = f"{self._split}/{number:05d}.parquet", [places[heap] for heap, _ in shard]
        return self._write_shard.remote(name, self._settings, self._patience, order, *pieces)


def heaps(pictures: list[Picture]) -> Iterator[list[Picture]]:
    """The pictures in their order, in heaps of which each but the last promises so many tiles or more."""
    most = min(sum(picture.tiles for picture in pictures) // (_HEAPS * cpus()), _HEAP_TILES)
    heap: list[Picture] = []
    promised = 0
    for picture in pictures:
        heap.append(picture)
        promised += picture.tiles
        if promised >= most:
            yield heap
            heap, promised = [], 0
    if heap:
        yield heap


def cut_heap(heap: list[Picture], settings: Prepare, patience: Patience) -> tuple[list[Measure], Columns]:
    """The measures of all tiles of some pictures, and these: two results, which go different ways."""
    cv2.setNumThreads(1)  # Ray runs one of these per core
    tiles = [tile for picture in heap for tile in patience(cut_picture, picture, settings.tile, settings.stride)]
    columns = {
        "image_id": np.array([tile.image_id for tile in tiles], object),
        "source": np.array([tile.source for tile in tiles], object),
        "clean": np.stack([tile.clean for tile in tiles]),
    }
    return [(tile.source, tile.code, tile.deviation) for tile in tiles], columns


def take_tiles(heap: Columns, rows: list[int]) -> Columns:
    """Some of the tiles of a heap."""
    return {name: values[rows] for name, values in heap.items()}


def write_shard(name: str, settings: Prepare, patience: Patience, order: list[int], *pieces: Columns) -> DataFile:
    """Write a shard to the storage; `order` says for each row which of the pieces has it, next of its own."""
    content = io.BytesIO()
    write_rows(
        content, _rows(order, pieces), row_schema(CLEAN_COLUMNS, settings.tile, settings.tile), settings.row_group_rows
    )
    file = describe(name, content.getvalue())
    patience(Storage(patience.place).keep, file.address, content.getvalue())
    return file


def _rows(order: Iterable[int], pieces: tuple[Columns, ...]) -> Iterator[dict[str, Any]]:
    readers = [zip(*piece.values(), strict=True) for piece in pieces]
    for place in order:
        image_id, source, clean = next(readers[place])
        yield {
            "image_id": image_id,
            "source": source,
            "clean": clean,
            "height": clean.shape[0],
            "width": clean.shape[1],
        }
