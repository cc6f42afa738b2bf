"""Shards as version 1 of this code had them, with PNG files for images: what `benchmarks.ingest` compares today's with.

Nothing here is shared with what reads today's shards but which samples a group holds.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.row_groups import RowGroup, RowGroups
from pipelines.data.shards import by_group, read_group
from pipelines.training.batches import Groups
from pipelines.training.groups import Mix

IMAGES = ("degraded", "clean")


def png_shards(mix: Mix, shards: Path, folder: Path) -> Mix:
    """The images of `mix`, whose files lie in `shards`, as PNG files under the same names in `folder`."""
    every = []
    for of_task in mix.row_groups:
        paths, rows = [], []
        for path, groups in itertools.groupby(of_task, lambda group: group.path):
            target = folder / Path(path).relative_to(shards.resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            paths.append(str(target))
            rows.append(_write(target, list(groups)))
        every.append(RowGroups(paths, rows))
    return dataclasses.replace(mix, row_groups=tuple(every))


def _write(target: Path, groups: list[RowGroup]) -> list[int]:
    """Write row groups as one file and return their rows."""
    schema = pa.schema([(name, pa.binary()) for name in IMAGES])
    level = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # more effort saves few bytes of noisy tiles
    with pq.ParquetWriter(target, schema, compression="none", use_dictionary=False) as writer:
        for group in groups:
            columns = [
                [cv2.imencode(".png", each[..., ::-1], level)[1].tobytes() for each in of_kind]
                for of_kind in read_group(group)
            ]
            writer.write_table(pa.table(columns, schema=schema))
    return [group.rows for group in groups]


def read_png_groups(mix: Mix, side: int, start: int, stop: int) -> Groups:
    """As `read_groups`: each image decoded, its square sliced out, perhaps mirrored, and turned."""
    cut = {name: np.empty((stop - start, len(mix.index), 3, side, side), np.uint8) for name in IMAGES}
    rng, first = np.random.default_rng([mix.seed, start]), 0
    for share, stream in zip(mix.shares, mix.streams, strict=True):
        samples = stream.take(start * share, (stop - start) * share)
        for group, places in by_group(samples).items():
            table = pq.ParquetFile(group.path, pre_buffer=True).read_row_group(group.number)
            for place in places:
                draws, turn, flip = rng.random(2), int(rng.integers(4)), int(rng.choice([1, -1]))
                for name in IMAGES:
                    data = np.frombuffer(table[name][samples[place][1]].as_buffer(), np.uint8)
                    image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
                    top, left = (int(d * (n - side + 1)) for d, n in zip(draws, image.shape, strict=False))
                    square = np.rot90(image[top : top + side, left : left + side][::flip], turn)
                    cut[name][place // share, first + place % share] = square.transpose(2, 0, 1)
        first += share
    return cut
