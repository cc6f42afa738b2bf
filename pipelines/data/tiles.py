"""Reading clean tiles by their number; what is damaged is named with its file and the way to mend it."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.common.manifest import has_manifest
from pipelines.data.row_groups import RowGroup, RowGroups, groups_of_files, groups_of_manifest
from pipelines.data.rows import CLEAN_COLUMNS, check_rows, open_parquet, read_whole, rows_of


class TilesError(ValueError):
    """Clean tiles that cannot be used; the message names the file and how to remake it."""


def open_tiles(path: Path, place: str | None = None) -> RowGroups:
    """Where the clean tiles of a split lie; `path` is CLEAN/SPLIT.parquet, a file where CLEAN holds no manifest.

    `place` is where the folder is read, as `Storage.publish` says. Raises FileNotFoundError, which says which stage
    makes them, and TilesError for a file that is damaged or holds something else.
    """
    if has_manifest(path.parent):
        groups = groups_of_manifest(path.parent, path.stem, place)
        if not groups.paths:
            raise no_tiles(path, FileNotFoundError())
        return groups
    return groups_of_files([path], place or str(path.resolve().parent), CLEAN_COLUMNS, no_tiles)


def read_tiles(tiles: RowGroups, numbers: np.ndarray) -> list[dict[str, Any]]:
    """The rows of the tiles with these numbers, rising; only the row groups that hold them are read.

    `clean` is uint8 (H, W, 3), not to be written to. Raises the errors of `open_tiles`, and OSError where the storage
    is away.
    """
    ends = np.cumsum(tiles.rows)
    numbers = numbers[numbers < ends[-1]] if len(ends) else numbers[:0]
    holding = np.searchsorted(ends, numbers, side="right")
    rows = []
    wanted = [(tiles[int(i)], numbers[holding == i] - (ends[i] - tiles.rows[i])) for i in np.unique(holding)]
    for path, of_file in itertools.groupby(wanted, lambda each: each[0].path):
        groups = list(of_file)
        read, told = (
            functools.partial(_read_groups, groups),
            functools.partial(no_tiles, path, lost=groups[0][0].seal is not None),
        )
        rows += read_whole(groups[0][0].folder, read, told)
    return rows


def _read_groups(groups: list[tuple[RowGroup, np.ndarray]]) -> list[dict[str, Any]]:
    """Some rows of some row groups of one file."""
    file = open_parquet(groups[0][0].path, groups[0][0].seal)
    check_rows(file.schema_arrow, CLEAN_COLUMNS)
    return [row for group, inside in groups for row in rows_of(file.read_row_group(group.number).take(inside))]


def no_tiles(path: Path | str, reason: object, lost: bool = False) -> OSError | TilesError:
    """The error for a file that is missing, or out of which no clean tiles can be read.

    One that a manifest names is `lost` where it is missing: DVC, which has the manifest, would not make it by itself.
    """
    if isinstance(reason, FileNotFoundError) and not lost:
        return FileNotFoundError(f"{path}: expected clean tiles; make them with `dvc repro prepare`")
    return TilesError(f"{path}: no clean tiles can be read ({reason}); make them anew: `dvc repro -f -s prepare`")
