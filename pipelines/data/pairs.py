"""Image pairs out of shards: a few of each task, spread evenly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ipt.pixels import to_unit
from pipelines.data.row_groups import RowGroup
from pipelines.data.shards import read_pairs, row_groups_of

Pairs = dict[str, list[tuple[np.ndarray, np.ndarray]]]  # task -> (degraded, clean) images


def load_validation(shards: Path, tasks: Iterable[str], count: int, places: Mapping[str, str] | None = None) -> Pairs:
    """`count` held-out pairs of each task, as `load_pairs` gives them; `places` says where its folder is read."""
    return {task: load_pairs(shards / task / "val", count, places[task] if places else None) for task in tasks}


def spread_rows(folder: Path, count: int, place: str | None = None) -> list[tuple[RowGroup, int]]:
    """`count` rows of the shards in `folder` (all, where there are fewer), spread evenly; `place` as `row_groups_of`.

    Raises FileNotFoundError, ManifestError or ShardError where shards are missing or damaged.
    """
    groups = row_groups_of(folder, place)
    ends = np.cumsum(groups.rows)
    chosen = np.linspace(0, ends[-1] - 1, min(count, ends[-1])).round().astype(int)
    holding = np.searchsorted(ends, chosen, side="right")
    return [(groups[int(i)], int(row - (ends[i] - groups.rows[i]))) for i, row in zip(holding, chosen, strict=True)]


def load_pairs(folder: Path, count: int, place: str | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to `count` pairs of the shards in `folder`, spread evenly; errors as of `spread_rows` and `read_pairs`."""
    return read_images(spread_rows(folder, count, place))


def read_images(rows: list[tuple[RowGroup, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pairs in those rows, float32 in [0, 1]; only their row groups are read. Errors as of `read_pairs`."""
    degraded, clean = (to_unit(levels) for levels in read_pairs(rows))
    return list(zip(degraded, clean, strict=True))
