"""Reading shard files row group by row group; what is damaged is named with its file and the way to mend it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.common.manifest import has_manifest, remake
from pipelines.data.row_groups import RowGroup, RowGroups, groups_of_files, groups_of_manifest
from pipelines.data.rows import IMAGES, SHARD_COLUMNS, check_rows, images_of, open_parquet, parquet_files, read_whole


class ShardError(ValueError):
    """A shard that cannot be used; the message names the file and how to remake it."""


def row_groups_of(folder: Path, place: str | None = None) -> RowGroups:
    """The row groups of the shards of a split, TASK/SPLIT: from their footers, or as a manifest in TASK says.

    `place` is where TASK is read, as `Storage.publish` says. Raises FileNotFoundError where there is no shard,
    ManifestError or ShardError where one is damaged, where the images of one have another size than those of another,
    and where none has a row.
    """
    if has_manifest(folder.parent):
        groups = groups_of_manifest(folder.parent, folder.name, place)
    else:
        place = f"{place or folder.parent.resolve()}/{folder.name}"
        groups = groups_of_files(parquet_files(folder), place, SHARD_COLUMNS, damaged)
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
        file = open_parquet(group.path, group.seal)
        check_rows(file.schema_arrow, SHARD_COLUMNS)
        table = file.read_row_group(group.number, columns=list(IMAGES))
        return images_of(table, "degraded"), images_of(table, "clean")

    where = f"{group.path} row group {group.number}"
    data = group.seal.folder if group.seal else None
    return read_whole(group.folder, read, functools.partial(damaged, where, data=data))


def by_group(places: Sequence[tuple[RowGroup, int]]) -> dict[RowGroup, list[int]]:
    """Which of the places are in each row group."""
    inside: dict[RowGroup, list[int]] = {}
    for place, (group, _) in enumerate(places):
        inside.setdefault(group, []).append(place)
    return inside


def damaged(origin: Path | str, reason: object, data: str | None = None) -> ShardError:
    """The error for a shard file, or for a row as `origin` names it, of the data folder `data`.

    Without `data` it lies in TASK/SPLIT/FILE.
    """
    folder = Path(data) if data else Path(str(origin).split(" row group ")[0]).parents[1]
    return ShardError(f"{origin}: damaged shard ({reason}); remake it with `{remake(folder)}`")
