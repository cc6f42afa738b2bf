"""Reading shard files row group by row group; what is damaged is named with its file and the way to mend it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.rows import (
    IMAGES,
    SHARD_COLUMNS,
    check_rows,
    image_shape,
    images_of,
    open_parquet,
    parquet_files,
    read_whole,
)


class ShardError(ValueError):
    """A shard that cannot be used; the message names the file and how to remake it."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of a shard file."""

    path: str  # absolute, or a URI
    number: int
    rows: int


class RowGroups(Sequence[RowGroup]):
    """Any number of row groups in a few bytes each: it travels to every process that reads."""

    def __init__(self, paths: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """`rows` are those of each row group, by file."""
        self.paths = tuple(paths)
        self.rows = np.array([count for file in rows for count in file], np.int64)
        self._ends = np.cumsum([len(file) for file in rows])  # number of row groups up to each file

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> RowGroup:  # type: ignore[override]  # nobody needs slices
        if not 0 <= place < len(self):
            raise IndexError(place)
        file = int(np.searchsorted(self._ends, place, side="right"))
        first = int(self._ends[file - 1]) if file else 0
        return RowGroup(self.paths[file], place - first, int(self.rows[place]))


def row_groups_of(folder: Path, place: str | None = None) -> RowGroups:
    """The row groups of the shards right inside `folder`, from their footers; `place` is where they will be read.

    Raises FileNotFoundError where there is no shard, ShardError where one is damaged, where the images of one have
    another size than those of another, and where none has a row.
    """
    paths: list[str] = []
    rows: list[list[int]] = []
    shapes: set[tuple[int, ...]] = set()
    for path in parquet_files(folder):
        try:
            footer = pq.read_metadata(path)
            schema = footer.schema.to_arrow_schema()
            check_rows(schema, SHARD_COLUMNS)
            shapes.add(image_shape(schema.field("clean")))
            if len(shapes) > 1:
                raise ValueError(f"images of {sorted(shapes)}, expected one size in all shards of a task")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(path, error) from error
        paths.append(f"{place or folder.resolve()}/{path.name}")
        rows.append([footer.row_group(number).num_rows for number in range(footer.num_row_groups)])
    groups = RowGroups(paths, rows)
    if not groups.rows.sum():
        raise damaged(folder / "*.parquet", "expected samples, got shards without rows")
    return groups


def read_pairs(places: Sequence[tuple[RowGroup, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Degraded and clean images of these rows of row groups, each uint8 (N, H, W, 3); a row group is read once.

    Raises ShardError where a shard is damaged or gone, OSError where all that lies beside it is away too.
    """
    pairs: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(places)
    for group, wanted in by_group(places).items():
        degraded, clean = read_group(group)
        for place in wanted:
            row = places[place][1]
            pairs[place] = degraded[row], clean[row]
    return np.stack([degraded for degraded, _ in pairs]), np.stack([clean for _, clean in pairs])


def read_group(group: RowGroup) -> tuple[np.ndarray, np.ndarray]:
    """All degraded and clean images of a row group, each uint8 (rows, H, W, 3); errors as of `read_pairs`."""

    def read() -> tuple[np.ndarray, np.ndarray]:
        file = open_parquet(group.path)
        check_rows(file.schema_arrow, SHARD_COLUMNS)
        table = file.read_row_group(group.number, columns=list(IMAGES))
        return images_of(table, "degraded"), images_of(table, "clean")

    return read_whole(group.path, read, functools.partial(damaged, f"{group.path} row group {group.number}"))


def by_group(places: Sequence[tuple[RowGroup, int]]) -> dict[RowGroup, list[int]]:
    """Which of the places are in each row group."""
    inside: dict[RowGroup, list[int]] = {}
    for place, (group, _) in enumerate(places):
        inside.setdefault(group, []).append(place)
    return inside


def damaged(origin: Path | str, reason: object) -> ShardError:
    """The error for a shard file, or for a row as `origin` names it; shards lie in TASK/SPLIT/FILE."""
    task = Path(str(origin).split(" row group ")[0]).parts[-3]
    return ShardError(f"{origin}: damaged shard ({reason}); remake it with `dvc repro -f -s synthesize@{task}`")
