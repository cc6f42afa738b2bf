"""From the files and folders that a person names to pairs: which file to restore, and where to."""

from __future__ import annotations

import glob
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ipt.photos.images import FORMATS, READ_ONLY

COMPARED = ".compare.jpg"  # behind the name of a restored file
_INSTEAD = ".jpg"  # of what is read and not written
_NOT_WRITTEN = READ_ONLY.keys() | frozenset({".dng", ".gif", ".jp2", ".jxl", ".pdf", ".svg", ".tga"})


class InputError(ValueError):
    """Files or folders that cannot be worked on as they were named."""


def find_photographs(
    inputs: Sequence[str],
    output: Path,
    suffix: str | None = None,
    on_other: Callable[[Path], object] = lambda file: None,
) -> list[tuple[Path, Path]]:
    """Each file to restore and where its restored version goes; with `suffix` (one of FORMATS) all to that format,
    without it what is not written (HEIC, AVIF) to JPEG.

    A file goes to the file `output` (one file, and `output` has an image's suffix), else into the folder `output`; of
    a folder every file with a suffix of FORMATS or READ_ONLY, to the same place in the tree below `output`. What is in
    `output` already is not taken from a folder or pattern that has other files too. `on_other` is called with each file
    in a folder, hidden ones aside, that is no photograph. Raises InputError where an input is
    not there, a folder has no such file, two files would become one, or `output` is in the way or no folder's name.
    """
    named = list(dict.fromkeys(found for name in inputs for found in _expand(name, output)))
    if len(named) > 1:  # `photos/* -o photos/restored` names the results as well
        named = [path for path in named if not (path.is_dir() and path.resolve() == output.resolve())]
    ending = output.suffix.lower()
    if len(named) == 1 and named[0].is_file() and ending in FORMATS and not output.is_dir():
        if suffix is not None and FORMATS[suffix] != FORMATS[ending]:
            raise InputError(f"{output}: names {ending}, the format asked for is {suffix}; name one of them")
        return [(named[0], output)]
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected a folder for what becomes of {', '.join(inputs)}")
    if ending in FORMATS.keys() | _NOT_WRITTEN and not output.exists():
        if len(named) == 1 and named[0].is_file():
            raise InputError(f"{output}: cannot write {ending}; expected one of {', '.join(sorted(FORMATS))}")
        raise InputError(f"{output}: looks like one picture; expected a folder for what becomes of several files")
    pairs = list(dict.fromkeys(pair for path in named for pair in _targets(path, output, on_other)))
    pairs = [(source, _with_format(target, suffix)) for source, target in pairs]
    sources: dict[str, Path] = {}
    for source, target in pairs:
        if (first := sources.setdefault(_as_named_on_disk(target), source)) != source:
            raise InputError(f"{target}: both {first} and {source} would be written there; restore them apart")
    return pairs


def _as_named_on_disk(path: Path) -> str:
    """The same for paths that may be one file: on Windows and macOS, also those that differ in upper and lower case, or
    in whether an accent is a character of its own."""
    if sys.platform in ("win32", "darwin"):
        return unicodedata.normalize("NFC", str(path)).casefold()
    return str(path)


def _expand(name: str, output: Path) -> list[Path]:
    if Path(name).exists():
        return [Path(name)]
    found = [Path(path) for path in sorted(glob.glob(name, recursive=True))]
    if not found:
        raise InputError(f"{name}: no such file or folder")
    if "**" in name:  # the files of a folder that matches do so too
        found = [path for path in found if not path.is_dir()] or found
    inside = output.resolve()
    return [path for path in found if not path.resolve().is_relative_to(inside)] or found


def _targets(path: Path, output: Path, on_other: Callable[[Path], object]) -> list[tuple[Path, Path]]:
    if not path.is_dir():
        return [(path, output / path.name)]
    files = []
    for file in _visible(path, output):
        if file.suffix.lower() in FORMATS.keys() | READ_ONLY:
            files.append(file)
        else:
            on_other(file)
    if not files:
        raise InputError(f"{path}: no file with one of the suffixes {', '.join(sorted(FORMATS | READ_ONLY))}")
    return [(file, output / file.relative_to(path)) for file in files]


def _visible(folder: Path, output: Path) -> Iterator[Path]:
    """The files in a folder that are not hidden and that no restoring has made."""
    inside = output.resolve()
    for file in sorted(folder.rglob("*")):
        if (
            file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(folder).parts)  # also what a killed run left
            and not file.name.endswith(COMPARED)
            and (inside == folder.resolve() or not file.resolve().is_relative_to(inside))
        ):
            yield file


def _with_format(target: Path, suffix: str | None) -> Path:
    """`target` with the suffix, unless its own names that format already (.jpeg and .jpg do)."""
    if suffix is None:
        return target.with_suffix(_INSTEAD) if target.suffix.lower() in READ_ONLY else target
    return target if FORMATS.get(target.suffix.lower()) == FORMATS[suffix] else target.with_suffix(suffix)
