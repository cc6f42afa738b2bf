"""Where clean pictures come from: folders of files, bundled photographs, procedural dead leaves."""

from __future__ import annotations

import functools
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ipt.photos import images
from ipt.photos.file_processes import FileProcesses
from ipt.photos.images import FORMATS
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


class SourceError(ValueError):
    """A source of clean pictures that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Picture:
    """One clean picture that can be read or drawn: a file, or dead leaves where `path` is None."""

    source: str  # "builtin", "dead_leaves" or the folder's path as in params
    name: str  # unique in its source
    scales: tuple[float, ...]
    path: Path | None
    size: int = 0  # pixels; of dead leaves only
    seed: tuple[int, ...] = ()  # of dead leaves only


def list_pictures(source: Source, seed: int) -> list[Picture]:
    """List a source's pictures in a fixed order, unread; SourceError when there are none."""
    if source.folder is not None:
        return _folder_pictures(source.folder)
    if source.builtin is not None:
        return _builtin_pictures(source.builtin)
    if source.dead_leaves is not None:
        return _dead_leaves_pictures(source.dead_leaves, seed)
    raise SourceError("prepare.sources: expected one of folder, builtin and dead_leaves, got none")


def read_picture(picture: Picture) -> np.ndarray:
    """Read or draw a picture: float32 (H, W, 3) RGB in [0, 1]; ImageError for a bad file."""
    if picture.path is None:
        return draw_dead_leaves(np.random.default_rng(picture.seed), picture.size)
    return images.read_image(picture.path) if _is_ours(picture) else _files().read_image(picture.path)


def read_small_picture(picture: Picture, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read the file of a picture at a fraction of its size, as `ipt.photos.images.read_thumbnail` does."""
    assert picture.path is not None, picture
    read = images.read_thumbnail if _is_ours(picture) else _files().read_thumbnail
    return read(picture.path, side)


def _is_ours(picture: Picture) -> bool:
    """Whether the file comes with a package: one that does harm would have done it already."""
    return picture.source == _BUILTIN


@functools.cache
def _files() -> FileProcesses:
    """The process that reads the files of this one, which ends with it; worker processes have one each."""
    return FileProcesses()


def _folder_pictures(folder: Folder) -> list[Picture]:
    root = Path(folder.path)
    where = f"prepare.sources: folder {folder.path!r}"
    if not root.is_dir():
        found = "it is a file" if root.exists() else "it does not exist"
        raise SourceError(f"{where}: expected a folder, but {found} (looked from {Path.cwd()})")
    inside = [path.relative_to(root) for path in root.rglob("*")]
    images = sorted(
        path.as_posix()
        for path in inside
        if path.suffix.lower() in FORMATS
        and not any(part.startswith(".") for part in path.parts)
        and not (root / path).is_dir()
    )
    if not images:
        raise SourceError(
            f"{where}: expected image files ({', '.join(sorted(FORMATS))}), found none "
            f"among {len(inside)} entries; put photographs there or take the folder out of the list"
        )
    return [Picture(folder.path, name, folder.scales, root / name) for name in images]


def _builtin_pictures(builtin: Builtin) -> list[Picture]:
    pictures = []
    for name, (package, inside) in _BUILTIN_FILES.items():
        # Found without importing: scikit-learn alone takes seconds to import.
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / inside if spec and spec.origin else None
        if path is None or not path.is_file():
            raise SourceError(
                f"prepare.sources: builtin: {name!r} is not in the installed {package} "
                f"(expected {path or package}); install the versions of constraints.txt"
            )
        pictures.append(Picture(_BUILTIN, name, builtin.scales, path))
    return pictures


def _dead_leaves_pictures(leaves: DeadLeaves, seed: int) -> list[Picture]:
    if leaves.images < 1:
        raise SourceError(f"prepare.sources: dead_leaves: images: expected 1 or more, got {leaves.images}")
    # The name is in the seed so that no other use of the same seed shares its numbers.
    stream = zlib.crc32(b"dead_leaves")
    return [
        Picture("dead_leaves", f"{index:05d}", (1.0,), None, leaves.size, (seed, stream, index))
        for index in range(leaves.images)
    ]
