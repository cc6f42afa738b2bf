"""Where clean pictures come from: folders of files, here or behind a URI, bundled photographs, dead leaves."""

from __future__ import annotations

import functools
import importlib.util
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import numpy as np
from pyarrow.fs import FileSelector, FileSystem, FileType

from ipt.photos import images
from ipt.photos.file_processes import FileProcesses
from ipt.photos.images import FORMATS, ImageError
from ipt.restoring.budget import MemoryBudget, file_limits
from pipelines.common.processes import usable_cores
from pipelines.pictures.dead_leaves import draw_dead_leaves

if TYPE_CHECKING:  # worker processes import this module, and params imports all degradations
    from pipelines.common.params import Builtin, DeadLeaves, Folder, Source


# (package, file inside it). All are in the wheels, nothing is downloaded. Left out: Hubble's deep
# field (its stars look like noise and snow, which a restorer must remove) and the fundus of an eye
# (mostly empty, and with 2 megapixels it would outweigh all others). The tissue section stays: it
# is a sharp photograph through a microscope, with fine texture all over.
_BUILTIN_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "immunohistochemistry": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


_BUILTIN = "builtin"
_MOST_BYTES = 1 << 30  # of a file behind a URI: no picture of images.MAX_PIXELS is larger
_NOT_PERMITTED = (
    "ACCESS_DENIED",
    "PERMISSION_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "status 403",
)

_AS_IT_IS = "%:/@!$&'()*+,;=~"  # in a URI; a blank would be refused, and '#' the end of the path

Result = TypeVar("Result")


class SourceError(ValueError):
    """A source of clean pictures that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One clean picture that can be read or drawn: a file, or dead leaves where `path` is None."""

    source: str  # "builtin", "dead_leaves" or the folder's path as in params
    name: str  # unique in its source
    scales: tuple[float, ...]
    path: str | None  # as its owner knows it: a path or a URI
    size: int = 0  # pixels; of dead leaves only
    seed: tuple[int, ...] = ()  # of dead leaves only
    place: str | None = None  # an absolute folder or a URI, where `name` is read by whoever reads it; None: at `path`
    tiles: int = 0  # that will be cut, once the picture was looked at


def list_pictures(source: Source, seed: int) -> list[Picture]:
    """List a source's pictures in a fixed order, unread; SourceError when there are none."""
    if source.folder is not None:
        return _uri_pictures(source.folder) if is_uri(source.folder.path) else _folder_pictures(source.folder)
    if source.builtin is not None:
        return _builtin_pictures(source.builtin)
    if source.dead_leaves is not None:
        return _dead_leaves_pictures(source.dead_leaves, seed)
    raise SourceError("prepare.sources: expected one of folder, builtin and dead_leaves, got none")


def is_uri(path: str) -> bool:
    """Whether the path of a source in params is such as s3://bucket/photos, which all nodes can read."""
    return "://" in path


def read_picture(picture: Picture) -> np.ndarray:
    """Read or draw a picture: float32 (H, W, 3) RGB in [0, 1].

    Raises ImageError for a bad file, OSError where what it lies in is away.
    """
    if picture.path is None:
        return draw_dead_leaves(np.random.default_rng(picture.seed), picture.size)
    return _read(picture, images.read_image if _is_ours(picture) else _files().read_image)


def read_small_picture(picture: Picture, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read the file of a picture at a fraction of its size, as `ipt.photos.images.read_thumbnail` does.

    Raises the errors of `read_picture`.
    """
    read = images.read_thumbnail if _is_ours(picture) else _files().read_thumbnail
    return _read(picture, lambda source: read(source, side))


def _read(picture: Picture, read: Callable[[str | Path | bytes], Result]) -> Result:
    assert picture.path is not None, picture
    if _is_ours(picture):
        return read(_builtin_path(picture.name))  # on another node it may be installed elsewhere
    if picture.place is None:
        return read(picture.path)
    content = _fetch(picture.place, picture)
    try:
        return read(content)
    except ImageError as error:  # its reader was not told a name
        raise type(error)(f"{picture.path}: {str(error).removeprefix('image: ')}") from error


def _fetch(place: str, picture: Picture) -> bytes:
    """The bytes of a file through pyarrow; ImageError where the file is bad, OSError where its storage is away."""
    filesystem, root = _opened(place)
    try:
        with filesystem.open_input_file(f"{root}/{picture.name}") as file:
            if file.size() > _MOST_BYTES:
                raise ImageError(f"{picture.path}: {file.size()} bytes; the limit is {_MOST_BYTES}")
            return file.read()
    except OSError as error:
        if isinstance(error, FileNotFoundError) or _is_refusal(error):
            raise ImageError(f"{picture.path}: cannot be read: {error}") from error
        raise OSError(f"{picture.path}: {error}; run the same command again when its storage answers") from error


@functools.cache
def _opened(place: str) -> tuple[FileSystem, str]:
    """What reads a place, which keeps its connections, and the path in it."""
    return FileSystem.from_uri(quote(place, _AS_IT_IS) if is_uri(place) else place)


def _is_refusal(error: OSError) -> bool:
    return isinstance(error, PermissionError) or any(word in str(error) for word in _NOT_PERMITTED)


def _is_ours(picture: Picture) -> bool:
    """Whether the file comes with a package: one that does harm would have done it already."""
    return picture.source == _BUILTIN and picture.name in _BUILTIN_FILES


@functools.cache
def _files() -> FileProcesses:
    """The process that reads the files of this one, which ends with it; worker processes, one a core, have one each."""
    return FileProcesses(1, file_limits(MemoryBudget.of_what_is_free().files(usable_cores())))


def _folder_pictures(folder: Folder) -> list[Picture]:
    root = Path(folder.path)
    if not root.is_dir():
        found = "it is a file" if root.exists() else "it does not exist"
        raise SourceError(f"{_where(folder)}: expected a folder, but {found} (looked from {Path.cwd()})")
    inside = [path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()]
    names = _image_names(inside)
    _check_any(names, inside, folder)
    return [Picture(folder.path, name, folder.scales, str(root / name)) for name in names]


def _uri_pictures(folder: Folder) -> list[Picture]:
    uri = folder.path.rstrip("/")
    if ":" in uri.partition("://")[2].partition("/")[0].rpartition("@")[0]:
        raise SourceError(
            "prepare.sources: a folder with a password in its URI, which would get into data and reports; take it out, "
            "and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what its store asks for) in the environment"
        )
    if not is_uri(uri):
        raise SourceError(f"{_where(folder)}: expected s3://BUCKET/FOLDER, or what else pyarrow.fs opens")
    if "?" in uri:
        raise SourceError(
            f"{_where(folder)}: expected no '?'; set options of a store in the environment (AWS_ENDPOINT_URL, "
            "AWS_REGION), on all nodes"
        )
    try:
        filesystem, root = _opened(uri)
        found = filesystem.get_file_info(FileSelector(root, recursive=True))
    except (OSError, ValueError) as error:
        raise SourceError(f"{_where(folder)}: {_why_not(error)}") from error
    inside = [each.path.removeprefix(f"{root}/") for each in found if each.type == FileType.File]
    names = _image_names(inside)
    _check_any(names, inside, folder)
    return [Picture(uri, name, folder.scales, f"{uri}/{name}", place=uri) for name in names]


def _where(folder: Folder) -> str:
    return f"prepare.sources: folder {folder.path!r}"


def _image_names(names: Iterable[str]) -> list[str]:
    """Those of image files, in order; nothing that is hidden, or in a hidden folder."""
    return sorted(name for name in _visible(names) if PurePosixPath(name).suffix.lower() in FORMATS)


def _visible(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _check_any(names: list[str], files: list[str], folder: Folder) -> None:
    """Raise where no file is an image; else tell how many of other kinds are left out."""
    if not names:
        raise SourceError(
            f"{_where(folder)}: expected image files ({', '.join(sorted(FORMATS))}), found none "
            f"among {len(files)} files; put photographs there or take the folder out of the list"
        )
    others = Counter(PurePosixPath(name).suffix.lower() or "without suffix" for name in _visible(files))
    told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()) if suffix not in FORMATS)
    if told:
        print(f"{_where(folder)}: left out: {told} (read are {', '.join(sorted(FORMATS))})", flush=True)


def _why_not(error: OSError | ValueError) -> str:
    """Why a URI cannot be listed, in words, and what to do."""
    if isinstance(error, ValueError):
        return f"cannot be opened: {error}; expected s3://BUCKET/FOLDER, or what else pyarrow.fs opens"
    if isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in str(error):
        return (
            f"there is no such folder: {error}; look for a slip in its name, and in AWS_ENDPOINT_URL where you set it"
        )
    if _is_refusal(error):
        return (
            f"not permitted: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what its store asks for) of "
            "somebody who may list and read it, on all nodes"
        )
    return f"cannot be listed: {error}; look at its name, AWS_ENDPOINT_URL, AWS_REGION and the network"


def _builtin_pictures(builtin: Builtin) -> list[Picture]:
    return [Picture(_BUILTIN, name, builtin.scales, _builtin_path(name)) for name in _BUILTIN_FILES]


@functools.cache
def _builtin_path(name: str) -> str:
    package, inside = _BUILTIN_FILES[name]
    # Found without importing: scikit-learn alone takes seconds to import.
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / inside if spec and spec.origin else None
    if path is None or not path.is_file():
        raise SourceError(
            f"prepare.sources: builtin: {name!r} is not in the installed {package} "
            f"(expected {path or package}); install the versions of constraints.txt"
        )
    return str(path)


def _dead_leaves_pictures(leaves: DeadLeaves, seed: int) -> list[Picture]:
    if leaves.images < 1:
        raise SourceError(f"prepare.sources: dead_leaves: images: expected 1 or more, got {leaves.images}")
    # The name is in the seed so that no other use of the same seed shares its numbers.
    stream = zlib.crc32(b"dead_leaves")
    return [
        Picture("dead_leaves", f"{index:05d}", (1.0,), None, leaves.size, (seed, stream, index))
        for index in range(leaves.images)
    ]
