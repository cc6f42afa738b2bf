"""The manifest of a data folder whose Parquet files lie in the shared storage, named by their content.

With a local storage a stage writes its Parquet files into its folder. With a shared one (`Storage.only_shared`) whoever
makes them writes them straight there (`Storage.keep`, to `DataFile.address`), and the folder holds one small file in
their place, which DVC versions: a line of JSON with a checksum of what follows, then a line for each file, by name. Its
bytes depend on what is in the files alone: not on who wrote them, when, or where the storage is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.common.paths import CLEAN, MANIFEST

VERSION = 1
FILES = "files"  # the folder of the storage that holds them


class ManifestError(ValueError):
    """A manifest that cannot be used; the message says how to get the right one."""


@dataclass(frozen=True)
class Seal:
    """What a reader knows a file of a manifest by, without reading all of it."""

    bytes: int
    footer: str  # as of `DataFile`
    folder: str  # the data folder whose manifest says so: what it is remade by


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a data folder: `pipelines.data.rows.describe` makes it of the file's bytes."""

    name: str  # as it would be in the folder: SPLIT/NUMBER.parquet
    rows: tuple[int, ...]  # of each row group
    shape: tuple[int, int]  # height and width of its images
    bytes: int
    sha256: str  # of the whole file, hex
    footer: str  # SHA-256 of the Parquet footer, which places every page: the first 16 digits

    @property
    def split(self) -> str:
        """The part of the folder that it belongs to."""
        return self.name.partition("/")[0]

    @property
    def address(self) -> str:
        """Where it lies in the storage."""
        return f"{FILES}/{self.sha256[:2]}/{self.sha256}.parquet"

    def seal(self, data: Path) -> Seal:
        """By what a reader knows it, of the data folder `data`."""
        return Seal(self.bytes, self.footer, str(data))


def write_manifest(folder: Path, files: Iterable[DataFile]) -> None:
    """Write the manifest of `files` into `folder`; in which order they come does not matter."""
    lines = [json.dumps(asdict(file), separators=(",", ":")) for file in sorted(files, key=lambda file: file.name)]
    text = "".join(f"{line}\n" for line in lines)
    head = {"manifest": VERSION, "files": len(lines), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / MANIFEST).write_text(f"{json.dumps(head)}\n{text}")


def has_manifest(folder: Path) -> bool:
    """Whether the files of a data folder lie in the shared storage."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> list[DataFile]:
    """The files of the data folder, by name; ManifestError where its manifest is damaged or was edited."""
    return parse_manifest((folder / MANIFEST).read_bytes(), folder)


def parse_manifest(content: bytes, folder: Path) -> list[DataFile]:
    """The files that a manifest's bytes name; `folder` is the data folder that errors tell of."""
    head, _, text = content.partition(b"\n")
    try:
        expected = json.loads(head)
        if expected["manifest"] != VERSION:
            raise ValueError(f"of version {expected['manifest']}, expected {VERSION}")
        if expected["sha256"] != hashlib.sha256(text).hexdigest():
            raise ValueError("edited or cut short: its lines are not those that its checksum was made of")
        files = [_data_file(json.loads(line)) for line in text.splitlines()]
        names = Counter(file.name for file in files)
        if len(names) != len(files):
            raise ValueError(f"{names.most_common(1)[0][0]} is listed more than once")
    except (ValueError, TypeError, KeyError) as error:
        raise ManifestError(
            f"{folder / MANIFEST}: damaged manifest ({error}); bring it back with `dvc checkout --force {folder}`, or "
            f"remake it with `{remake(folder)}`"
        ) from error
    return files


def _data_file(line: dict) -> DataFile:
    return DataFile(**line | {"rows": tuple(line["rows"]), "shape": tuple(line["shape"])})


def remake(folder: Path) -> str:
    """The command that makes a data folder anew: data/clean, or the shards of a task."""
    return f"dvc repro -f -s {'prepare' if folder.name == CLEAN.name else f'synthesize@{folder.name}'}"
