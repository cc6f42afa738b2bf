"""Reading shard files row group by row group; what is damaged is named with its file and the way to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.schema import SHARD_ROW, parquet_files


class ShardError(ValueError):
    """A shard that cannot be used; the message names the file and how to remake it."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of a shard file."""

    path: str
    number: int
    rows: int


def row_groups_of(folder: Path) -> Iterator[RowGroup]:
    """The row groups of the shards right inside `folder`, from their footers.

    Raises FileNotFoundError where there is no shard, ShardError where one is damaged.
    """
    for path in parquet_files(folder):
        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
        if not footer.schema.to_arrow_schema().equals(SHARD_ROW):
            raise damaged(path, f"columns {footer.schema.names}, expected {SHARD_ROW.names}")
        for number in range(footer.num_row_groups):
            yield RowGroup(str(path.resolve()), number, footer.row_group(number).num_rows)


def read_rows(places: Sequence[tuple[RowGroup, int]]) -> list[dict]:
    """`degraded`, `clean` (PNG bytes) and `origin` (where it is stored) of each place; a row group is read once."""
    tables = {}
    for group in {group for group, _ in places}:
        try:
            tables[group] = pq.ParquetFile(group.path).read_row_group(group.number, columns=["degraded", "clean"])
        except (pa.ArrowException, OSError) as error:
            raise damaged(group.path, error) from error
    rows = []
    for group, row in places:
        values = {name: tables[group][name][row].as_py() for name in ("degraded", "clean")}
        rows.append(values | {"origin": f"{group.path} row group {group.number} row {row}"})
    return rows


def damaged(origin: Path | str, reason: object) -> ShardError:
    """The error for a shard file, or for a row as `origin` names it; shards lie in TASK/SPLIT/FILE."""
    task = Path(str(origin).split(" row group ")[0]).parts[-3]
    return ShardError(f"{origin}: damaged shard ({reason}); remake it with `dvc repro -f -s synthesize@{task}`")
