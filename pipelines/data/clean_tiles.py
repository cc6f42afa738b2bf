"""Reading files of clean tiles, `data/clean/train.parquet` and `val.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.rows import CLEAN_COLUMNS, check_rows, images_of, open_parquet

REMAKE = "make them anew: `dvc repro -f -s prepare`"


def open_tiles(path: Path | str) -> pq.ParquetFile:
    """A file of clean tiles, by path or (text) by place.

    Raises FileNotFoundError, which says which stage makes it, and ValueError for a file that holds something else.
    """
    try:
        file = open_parquet(str(path.resolve()) if isinstance(path, Path) else path)
        check_rows(file.schema_arrow, CLEAN_COLUMNS)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected clean tiles; make them with `dvc repro prepare`") from error
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: no clean tiles of this version ({error}); {REMAKE}") from error
    return file


def read_tiles(path: Path | str, numbers: np.ndarray) -> list[dict[str, Any]]:
    """The rows of a file with these numbers, rising; only the row groups that hold them are read.

    `clean` is uint8 (H, W, 3), not to be written to. Raises the errors of `open_tiles`, and ValueError for damage.
    """
    file, rows, first = open_tiles(path), [], 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        inside = numbers[(numbers >= first) & (numbers < first + length)] - first
        if len(inside):
            try:
                table = file.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{path}: row group {group} is damaged ({error}); {REMAKE}") from error
            rest = table.drop_columns(["clean"]).take(inside).to_pylist()
            rows += [row | {"clean": tile} for row, tile in zip(rest, images_of(table, "clean")[inside], strict=True)]
        first += length
    return rows
