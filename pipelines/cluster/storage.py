"""`ray.storage`: a folder of this checkout, a shared folder or an object store, all through pyarrow.

Where it lies inside the checkout, the nodes see this checkout too (one machine, or a checkout on a shared disk). Where
it is an absolute folder or a URI, it is all that they share: what stages make is written there at once, and what else
they read of the checkout is copied there once.

A *place* is an absolute path or a URI, as text.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from ipt.files import replace_file, sync_names
from pipelines.common.files import sync_folder
from pipelines.common.manifest import has_manifest, remake
from pipelines.common.paths import MANIFEST

PUBLISHED = "data"  # the folder of copies, by the hash of what is in them
PAUSE = 5.0  # seconds between attempts
OBJECT_STORES = ("s3", "gcs", "abfs")  # as pyarrow names them

Result = TypeVar("Result")


class StorageError(OSError):
    """The storage cannot be used; the message says where, why and what to do."""


@dataclass(frozen=True)
class File:
    """A file of the storage."""

    name: str  # in the storage
    bytes: int
    written: float  # in seconds since 1970 of the storage's own clock


class Storage:
    """The storage named in params.yaml; StorageError where it cannot be opened."""

    def __init__(self, setting: str) -> None:
        self.only_shared = "://" in setting or Path(setting).is_absolute()  # the nodes do not see the checkout
        self.place = setting.rstrip("/") if "://" in setting else str(Path(setting).resolve())
        if "?" in self.place:
            raise StorageError(
                f"params.yaml.ray.storage: expected no '?' in {setting}; set options of a store in the environment "
                "(AWS_ENDPOINT_URL, AWS_REGION), on all nodes"
            )
        try:
            self._filesystem, self._path = FileSystem.from_uri(self.place)
        except (ValueError, OSError) as error:
            raise StorageError(f"params.yaml.ray.storage: cannot open {setting}: {error}") from error

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote, None where there is nothing."""
        try:
            with self._filesystem.open_input_stream(f"{self._path}/{name}") as file:
                return json.loads(file.read())
        except FileNotFoundError:
            return None

    def write_json(self, name: str, value: Any) -> None:
        """Write one small file, whole or not at all; its folder is made. Of several at once the last one's stays."""
        self._write(name, json.dumps(value).encode())

    def keep(self, name: str, content: bytes) -> None:
        """Write a file that is named by its content, whole or not at all: twice, or by two at once, does no harm.

        It is written again where it is there already, and so is young: collecting garbage leaves it alone.
        """
        self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        """A killed run leaves the last good file; what others write at the same time is under another name."""
        target = written = f"{self._path}/{name}"
        if isinstance(self._filesystem, LocalFileSystem):
            with replace_file(Path(target)) as temporary:
                temporary.write_bytes(content)
            return
        if self._filesystem.type_name not in OBJECT_STORES:  # which have no folders, and show a file when all is there
            self._filesystem.create_dir(target.rpartition("/")[0], recursive=True)
            written = f"{target}.{secrets.token_hex(8)}.partial"
        with self._filesystem.open_output_stream(written) as file:
            file.write(content)
        if written != target:
            self._filesystem.move(written, target)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self._filesystem.open_input_stream(f"{self._path}/{name}") as file:
            return file.read()

    def files(self, name: str) -> Iterator[File]:
        """All files below a folder, that of hidden names too; none where there is no such folder.

        Folder after folder: an object store tells a thousand at once.
        """
        root = f"{self._path}/{name}"
        for found in self._filesystem.get_file_info(FileSelector(root, allow_not_found=True)):
            inside = f"{name}/{found.base_name}"
            if found.type == FileType.Directory:
                yield from self.files(inside)
            elif found.type == FileType.File:
                yield File(inside, found.size, found.mtime_ns / 1e9)

    def folders(self) -> list[str]:
        """The names of the folders right inside, in order; none where nothing was ever written."""
        found = self._filesystem.get_file_info(FileSelector(self._path, allow_not_found=True))
        return sorted(each.base_name for each in found if each.type == FileType.Directory)

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; nothing where there is none.

        Of a folder the files right inside go first: they say that what lies in the folders beside them is whole.
        """
        kind = self._filesystem.get_file_info(f"{self._path}/{name}").type
        if kind == FileType.Directory:
            for found in self._filesystem.get_file_info(FileSelector(f"{self._path}/{name}")):
                if found.type == FileType.File:
                    self._filesystem.delete_file(found.path)
            self._filesystem.delete_dir(f"{self._path}/{name}")
        elif kind == FileType.File:
            self._filesystem.delete_file(f"{self._path}/{name}")

    def copy(self, source: str, target: str) -> None:
        """Copy the files of one folder inside to another one inside; what is there under the same names is replaced."""
        _copy(f"{self._path}/{source}", self._filesystem, f"{self._path}/{target}", self._filesystem)
        _sync(self._filesystem, f"{self._path}/{target}")

    def fetch(self, name: str, folder: Path) -> None:
        """Copy the files of a folder inside to the local `folder`."""
        _copy(f"{self._path}/{name}", self._filesystem, str(folder), LocalFileSystem())

    def put(self, folder: Path, name: str) -> None:
        """Copy the files of the local `folder` to a folder inside; what is there under the same names is replaced."""
        upload(folder, self._filesystem, f"{self._path}/{name}")

    def here(self, folder: Path) -> str:
        """The place where this machine reads what is in `folder`: itself, or the storage where it holds a manifest.

        Raises StorageError for a manifest where params.yaml names no shared storage.
        """
        if not has_manifest(folder):
            return str(folder.resolve())
        if not self.only_shared:
            raise StorageError(
                f"{folder / MANIFEST}: its files lie in a shared storage, and params.yaml.ray.storage is {self.place}; "
                f"name that storage there, or make the data here: `{remake(folder)}`"
            )
        return self.place

    def publish(self, folder: Path) -> str:
        """The place where nodes read what is in `folder`: itself, its copy in the storage, or the storage.

        The last where it holds a manifest of files there. A copy is named by the hash of its content: what is there
        already is not copied again, and what a killed call left half-copied is.
        """
        if has_manifest(folder) or not self.only_shared:
            return self.here(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder to copy to {self.place}; run the stage that makes it")
        name = f"{PUBLISHED}/{content_hash(folder)}"
        if self.read_json(f"{name}/complete.json") is None:
            upload(folder.resolve(), self._filesystem, f"{self._path}/{name}/{folder.name}")
            self.write_json(f"{name}/complete.json", {"from": str(folder.resolve())})
        return f"{self.place}/{name}/{folder.name}"


@dataclass(frozen=True)
class Patience:
    """With a storage that is away for a while."""

    place: str
    seconds: float  # that it may be away
    tell: Callable[[str], None]

    def __call__(self, act: Callable[..., Result], *arguments: object) -> Result:
        """`act(*arguments)`, again and again while it raises OSError, until patience ends; tells of it once."""
        until, told = time.monotonic() + self.seconds, False
        while True:
            try:
                return act(*arguments)
            except OSError as error:
                if time.monotonic() > until:
                    raise
                if not told:
                    self.tell(f"storage {self.place}: {error}; trying again for {self.seconds:.0f} s")
                told = True
                time.sleep(PAUSE)


def say(text: str) -> None:
    """Tell of a storage that is away, on any node: `print` cannot travel to one, Ray has put another in its place."""
    print(text, flush=True)


def content_hash(folder: Path) -> str:
    """A hash of names and content of all files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(f"{path.relative_to(folder)}\n".encode() + content)
    return digest.hexdigest()[:16]


def upload(folder: Path, filesystem: FileSystem, target: str) -> None:
    """Copy the files of `folder` to `target`; what is there under the same names is replaced."""
    _copy(str(folder), LocalFileSystem(), target, filesystem)
    _sync(filesystem, target)


def _sync(filesystem: FileSystem, target: str) -> None:
    """Have a copy on the disk, where it is one of ours: what is written next says that the copy is whole."""
    if isinstance(filesystem, LocalFileSystem):
        sync_folder(Path(target))
        sync_names(Path(target).parent)


def _copy(source: str, of: FileSystem, target: str, to: FileSystem) -> None:
    to.create_dir(target, recursive=True)
    # Uploads of many files by threads can wait for one another for ever (apache/arrow#32372).
    threads = isinstance(of, LocalFileSystem) and isinstance(to, LocalFileSystem)
    copy_files(source, target, source_filesystem=of, destination_filesystem=to, use_threads=threads)
