"""Reading files of clean tiles, `data/clean/train.parquet` and `val.parquet`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.data.rows import CLEAN_COLUMNS, check_rows, open_parquet, read_rows, read_whole


def open_tiles(path: Path | str) -> pq.ParquetFile:
    """A file of clean tiles, by path or (text) by place.

    Raises FileNotFoundError, which says which stage makes it, ValueError for a file that is damaged or holds something
    else, and OSError where the storage is away.
    """
    place = str(path.resolve()) if isinstance(path, Path) else path

    def opened() -> pq.ParquetFile:
        file = open_parquet(place)
        check_rows(file.schema_arrow, CLEAN_COLUMNS)
        return file

    try:
        return read_whole(place, opened, functools.partial(no_tiles, path))
    except FileNotFoundError as error:  # the folder is not there either
        raise no_tiles(path, error) from error


def read_tiles(path: Path | str, numbers: np.ndarray) -> list[dict[str, Any]]:
    """The rows of a file with these numbers, rising; only the row groups that hold them are read.

    `clean` is uint8 (H, W, 3), not to be written to. Raises the errors of `open_tiles`.
    """
    file = open_tiles(path)
    place = str(path.resolve()) if isinstance(path, Path) else path
    return read_whole(place, lambda: read_rows(file, numbers), functools.partial(no_tiles, path))


def no_tiles(path: Path | str, reason: object) -> OSError | ValueError:
    """The error for a file that is missing, or out of which no clean tiles can be read."""
    if isinstance(reason, FileNotFoundError):
        return FileNotFoundError(f"{path}: expected clean tiles; make them with `dvc repro prepare`")
    return ValueError(f"{path}: no clean tiles can be read ({reason}); make them anew: `dvc repro -f -s prepare`")
