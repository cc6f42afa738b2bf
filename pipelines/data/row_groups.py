"""Where the rows of a data folder lie: in its own Parquet files, or in those of the storage that its manifest names.

Whoever reads data asks here, and need not know in which of the two forms it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.common.manifest import ManifestError, Seal, read_manifest, remake
from pipelines.common.paths import MANIFEST
from pipelines.data.rows import check_rows, image_shape

Damaged = Callable[[Path, object], Exception]  # a file and the reason -> what to raise


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file."""

    path: str  # absolute, or a URI
    number: int
    rows: int
    seal: Seal | None = None  # of the file, where a manifest names it

    @property
    def folder(self) -> str:
        """What can be seen of its storage unless that is away: the file's folder, or that of all sealed files."""
        return self.path.rsplit("/", 2 if self.seal else 1)[0]


class RowGroups(Sequence[RowGroup]):
    """Any number of row groups in a few bytes each: it travels to every process that reads."""

    def __init__(self, paths: Sequence[str], rows: Sequence[Sequence[int]], seals: Sequence[Seal] = ()) -> None:
        """`rows` are those of each row group, by file; `seals` those of all files of one folder, or none."""
        self._place = os.path.commonprefix(paths)  # noqa: RUF071  any letters that they have in common
        self._names = np.array([path[len(self._place) :].encode() for path in paths], np.bytes_)
        self.rows = np.array([count for file in rows for count in file], np.int64)
        self._ends = np.cumsum([len(file) for file in rows])  # number of row groups up to each file
        self._bytes = np.array([seal.bytes for seal in seals], np.int64)
        self._footers = np.array([seal.footer for seal in seals], np.bytes_)
        self._folder = seals[0].folder if seals else ""

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the files."""
        return tuple(self._path(file) for file in range(len(self._names)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> RowGroup:  # type: ignore[override]  # nobody needs slices
        if not 0 <= place < len(self):
            raise IndexError(place)
        file = int(np.searchsorted(self._ends, place, side="right"))
        first = int(self._ends[file - 1]) if file else 0
        return RowGroup(self._path(file), place - first, int(self.rows[place]), self._seal(file))

    def _path(self, file: int) -> str:
        return self._place + self._names[file].decode()

    def _seal(self, file: int) -> Seal | None:
        if not len(self._bytes):
            return None
        return Seal(int(self._bytes[file]), self._footers[file].decode(), self._folder)


def groups_of_files(
    files: Sequence[Path], place: str, columns: dict[str, pa.DataType | None], damaged: Damaged
) -> RowGroups:
    """The row groups of the Parquet files of a folder, from their footers; they are read in the folder `place`.

    Raises what `damaged` makes of a file that cannot be read, has other columns, or images of another size than those
    before it.
    """
    rows: list[list[int]] = []
    shapes: set[tuple[int, ...]] = set()
    for path in files:
        try:
            footer = pq.read_metadata(path)
            schema = footer.schema.to_arrow_schema()
            check_rows(schema, columns)
            shapes.add(image_shape(schema.field("clean")))
            check_sizes(shapes)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(path, error) from error
        rows.append([footer.row_group(number).num_rows for number in range(footer.num_row_groups)])
    return RowGroups([f"{place}/{path.name}" for path in files], rows)


def groups_of_manifest(data: Path, split: str, storage: str | None) -> RowGroups:
    """The row groups of the files of `split` that the manifest of the folder `data` names; no file is opened.

    They are read in the place `storage`. Raises ManifestError where the manifest cannot be used.
    """
    files = [file for file in read_manifest(data) if file.split == split]
    if storage is None:
        raise ManifestError(
            f"{data / MANIFEST}: its files lie in a shared storage; name it in params.yaml.ray.storage, or make them "
            f"here: `{remake(data)}`"
        )
    try:
        check_sizes({file.shape for file in files})
    except ValueError as error:
        raise ManifestError(f"{data / MANIFEST}: {error}; remake it with `{remake(data)}`") from error
    return RowGroups(
        [f"{storage}/{file.address}" for file in files],
        [file.rows for file in files],
        [file.seal(data) for file in files],
    )


def check_sizes(shapes: set) -> None:
    """Raise ValueError unless the images of all files of a folder are of one size."""
    if len(shapes) > 1:
        raise ValueError(f"images of {sorted(shapes)}, expected one size in all files of a folder")
