"""Reading shard files row group by row group; what is damaged is named with its file and the way to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.rows import SHARD_ROW, has_folder, open_parquet, parquet_files


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

    Raises FileNotFoundError where there is no shard, ShardError where one is damaged.
    """
    paths, rows = [], []
    for path in parquet_files(folder):
        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
        if not footer.schema.to_arrow_schema().equals(SHARD_ROW):
            raise damaged(path, f"columns {footer.schema.names}, expected {SHARD_ROW.names}")
        paths.append(f"{place or folder.resolve()}/{path.name}")
        rows.append([footer.row_group(number).num_rows for number in range(footer.num_row_groups)])
    return RowGroups(paths, rows)


def read_rows(places: Sequence[tuple[RowGroup, int]]) -> list[dict]:
    """`degraded`, `clean` (PNG bytes) and `origin` (where it is stored) of each place; a row group is read once.

    Raises ShardError where a shard is damaged or gone, OSError where all that lies beside it is away too.
    """
    tables = {group: _read(group) for group in {group for group, _ in places}}
    rows = []
    for group, row in places:
        values = {name: tables[group][name][row].as_py() for name in ("degraded", "clean")}
        rows.append(values | {"origin": f"{group.path} row group {group.number} row {row}"})
    return rows


def _read(group: RowGroup) -> pa.Table:
    for last in (False, True):
        try:
            return open_parquet(group.path).read_row_group(group.number, columns=["degraded", "clean"])
        except (pa.ArrowException, OSError) as error:
            if not has_folder(group.path):
                raise
            if last:  # not the first time: the storage may just have come back
                raise damaged(group.path, error) from error


def damaged(origin: Path | str, reason: object) -> ShardError:
    """The error for a shard file, or for a row as `origin` names it; shards lie in TASK/SPLIT/FILE."""
    task = Path(str(origin).split(" row group ")[0]).parts[-3]
    return ShardError(f"{origin}: damaged shard ({reason}); remake it with `dvc repro -f -s synthesize@{task}`")
