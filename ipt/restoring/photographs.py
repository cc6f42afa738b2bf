"""From the files a person names to restored files: which ones, where to, and one of them at a time."""

from __future__ import annotations

import dataclasses
import errno
import glob
import json
import shutil
import struct
import sys
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ipt.files import replace_file
from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.photos import photo as in_this_process
from ipt.photos import png
from ipt.photos.images import FORMATS, READ_ONLY, ImageError
from ipt.photos.photo import Photo
from ipt.restoring.memory import out_of_memory
from ipt.restoring.restore import Quality, plan_restoration, restore_tasks
from ipt.restoring.tiles import spans

COMPARED = ".compare.jpg"  # behind the name of a restored file
_INSTEAD = ".jpg"  # of what is read and not written
_NOT_WRITTEN = READ_ONLY.keys() | frozenset({".dng", ".gif", ".jp2", ".jxl", ".pdf", ".svg", ".tga"})
_LONGEST = 65500  # pixels, side of a JPEG
_GRAY_PROFILE = b"GRAY"  # the colour space in the head of an ICC profile


class InputError(ValueError):
    """Files or folders that cannot be worked on as they were named."""


class PhotoFiles(Protocol):
    """Who reads and writes photographs: `ipt.photos.photo`, or `FileProcesses` for those of strangers."""

    def read_photo(self, source: Path) -> Photo:
        """`ipt.photos.photo.read_photo`."""

    def write_photo(self, photo: Photo, levels: np.ndarray, path: Path, like: Path | None = None) -> None:
        """`ipt.photos.photo.write_photo`."""

    def encode_photo(self, photo: Photo, levels: np.ndarray) -> bytes:
        """`ipt.photos.photo.encode_photo`."""


@dataclass(frozen=True)
class Request:
    """What a person wants done to every file."""

    task: str | None = None
    instruction: str | None = None
    strength: float = 1.0
    tile: int | None = None
    overwrite: bool = False
    compare: bool = False  # also write the file beside what became of it
    precision: Precision = "auto"
    quality: Quality = "normal"


@dataclass(frozen=True)
class Report:
    """What became of one file."""

    file: str
    output: str
    status: Literal["restored", "unchanged", "skipped", "failed"]
    tasks: tuple[str, ...] = ()  # done, in order
    by: str | None = None  # task, instruction or blind
    understood: tuple[str, ...] | None = None  # of the instruction; empty: it was unclear
    probabilities: dict[str, float] = dataclasses.field(default_factory=dict)
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    error: str | None = None

    def to_json(self) -> str:
        """One line of JSON; probabilities with three digits."""
        rounded = {name: round(value, 3) for name, value in self.probabilities.items()}
        return json.dumps(dataclasses.asdict(self) | {"probabilities": rounded})

    @classmethod
    def from_json(cls, line: str) -> Report:
        """The inverse of `to_json`."""
        values = json.loads(line)
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)


def find_photographs(inputs: Sequence[str], output: Path, suffix: str | None = None) -> list[tuple[Path, Path]]:
    """Each file to restore and where its restored version goes; with `suffix` (one of FORMATS) all to that format,
    without it what is not written (HEIC, AVIF) to JPEG.

    A file goes to the file `output` (one file, and `output` has an image's suffix), else into the folder `output`; of
    a folder every file with a suffix of FORMATS or READ_ONLY, to the same place in the tree below `output`. What is in
    `output` already is not taken from a folder or pattern that has other files too. Raises InputError where an input is
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
    pairs = list(dict.fromkeys(pair for path in named for pair in _targets(path, output)))
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


def _targets(path: Path, output: Path) -> list[tuple[Path, Path]]:
    if not path.is_dir():
        return [(path, output / path.name)]
    inside = output.resolve()
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in FORMATS.keys() | READ_ONLY
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)  # also what a killed run left
        and not file.name.endswith(COMPARED)
        and (inside == path.resolve() or not file.resolve().is_relative_to(inside))
    ]
    if not files:
        raise InputError(f"{path}: no file with one of the suffixes {', '.join(sorted(FORMATS | READ_ONLY))}")
    return [(file, output / file.relative_to(path)) for file in files]


def _with_format(target: Path, suffix: str | None) -> Path:
    """`target` with the suffix, unless its own names that format already (.jpeg and .jpg do)."""
    if suffix is None:
        return target.with_suffix(_INSTEAD) if target.suffix.lower() in READ_ONLY else target
    return target if FORMATS.get(target.suffix.lower()) == FORMATS[suffix] else target.with_suffix(suffix)


def check_request(model: InstructIPT, request: Request) -> None:
    """Raise ValueError for what would go wrong with every file: an unknown task, a strength or tile out of range."""
    probe = np.zeros((1, 1, 3), np.float32)
    plan = plan_restoration(model, probe, task=request.task, instruction=request.instruction)
    restore_tasks(model, probe, plan.tasks, strength=request.strength, tile=request.tile, precision=request.precision)
    if request.tile is not None:  # too small for any picture that has to be cut
        reach = model.backbone.reach * max(len(plan.tasks), 1)
        spans(request.tile + 1, request.tile, reach, model.config.size_multiple)


def restore_file(
    model: InstructIPT, source: Path, target: Path, request: Request, files: PhotoFiles = in_this_process
) -> Report:
    """Restore the photograph `source` into `target`, whole or not at all, and say what was done.

    A clean one is copied byte for byte. A target whose suffix names another format than the source's becomes a file of
    that format; one that is an empty file is not there. What goes wrong is told in the report; what would go wrong with
    every file, `check_request` tells.
    """
    report = Report(str(source), str(target), "failed")
    started = time.perf_counter()
    try:
        if _is_done(source, target, request):
            return dataclasses.replace(report, status="skipped")
        original = files.read_photo(source)
        photo = _converted(original, source, target)
        height, width = photo.levels.shape[:2]
        report = dataclasses.replace(report, width=width, height=height)
        plan = plan_restoration(model, photo.levels, task=request.task, instruction=request.instruction)
        report = dataclasses.replace(
            report, tasks=plan.tasks, by=plan.by, understood=plan.understood, probabilities=plan.probabilities
        )
        restored = restore_tasks(
            model,
            photo.levels,
            plan.tasks,
            strength=request.strength,
            tile=request.tile,
            precision=request.precision,
            quality=request.quality,
        )
        unchanged = not plan.tasks or np.array_equal(restored, photo.levels)
        if request.compare:  # first: a file that is there counts as done
            _write_comparison(files, photo, restored, source, _compared(target), request.overwrite)
        if unchanged and photo is original and not photo.foreign:
            with replace_file(target, like=source) as temporary:
                shutil.copyfile(source, temporary)
        else:
            files.write_photo(photo, restored, target, like=source)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        return dataclasses.replace(report, error=_reason(error, source, target))
    return dataclasses.replace(
        report,
        status="unchanged" if unchanged else "restored",
        seconds=round(time.perf_counter() - started, 2),
    )


def _is_done(source: Path, target: Path, request: Request) -> bool:
    """Whether `target` is there and stays; raises an InputError or OSError where it cannot be written."""
    if target.is_dir():
        raise InputError(f"{target} is a folder")
    if not request.overwrite and _is_there(target):
        if source.exists() and target.samefile(source):
            reason = "the restored version would replace it; name another folder, or ask for that with --overwrite"
            raise InputError(reason)
        return True
    if request.compare:
        _is_there(_compared(target))  # a name that is too long is told before the work, where its folder is there
    return False


def _is_there(path: Path) -> bool:
    """Whether there is something to keep: an empty file is what a full disk or a crash of the machine left."""
    return path.exists() and not (path.is_file() and path.stat().st_size == 0)


def _compared(target: Path) -> Path:
    return target.with_name(target.name + COMPARED)


def _reason(error: Exception, source: Path, target: Path) -> str:
    if isinstance(error, FileExistsError):
        return f"cannot write {target}: {error.filename} is no folder"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = str(error.filename2 or error.filename)  # the second is what a file was to be renamed to
        remedy = ", or leave --compare out" if name.endswith(COMPARED) else ""
        return f"cannot write {name}: {error.strerror}; give {source} a shorter name{remedy}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot write {target}: {error.strerror}"
    text = " ".join(str(error).split()).removeprefix(f"{source}: ")
    if out_of_memory(error):
        return "out of memory; try a smaller --tile"
    return text or type(error).__name__


def _converted(photo: Photo, source: Path, target: Path) -> Photo:
    """`photo` for the format that the suffix of `target` names, where that of `source` names another.

    EXIF, XMP, colour profile and resolution go along where the format has a place for them, comments do not.
    Raises ImageError for pixels that the format cannot hold, and for a profile, or what a PNG says of its colours
    instead, without which they would change.
    """
    kind = FORMATS.get(target.suffix.lower())
    if kind in (None, photo.format, FORMATS.get(source.suffix.lower())):
        return photo
    if kind not in ("PNG", "TIFF") and photo.levels.dtype == np.uint16:
        raise ImageError(f"{target.suffix} cannot hold its 16 bits per channel; name a .png or .tif file")
    alpha = photo.alpha
    if kind == "JPEG" and alpha is not None:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            raise ImageError(f"{target.suffix} cannot hold its transparency; name a .png, .webp or .tif file")
        alpha = None
    if kind == "BMP" and photo.icc:
        raise ImageError(f"{target.suffix} cannot hold its colour profile; name a .png, .jpg, .webp or .tif file")
    told = None if photo.icc or photo.format != "PNG" else png.other_colours(photo.pieces)
    if told:
        raise ImageError(f"{target.suffix} cannot hold what its chunk {told} says of its colours; name a .png file")
    gray = photo.gray and (kind in ("PNG", "TIFF") or (kind != "WEBP" and alpha is None))
    if photo.gray and not gray and photo.icc and photo.icc[16:20] == _GRAY_PROFILE:
        raise ImageError(
            f"{target.suffix} cannot hold its gray, for which its colour profile is; name a .png, .jpg or .tif file"
        )
    dots = [round(number / 0.0254) for number in photo.dpi or ()]  # of a metre
    pieces = ((b"pHYs", struct.pack(">LLB", *dots, 1)),) if kind == "PNG" and dots else ()
    return dataclasses.replace(photo, format=kind, alpha=alpha, gray=gray, pieces=pieces)


def _write_comparison(
    files: PhotoFiles, photo: Photo, restored: np.ndarray, source: Path, compared: Path, overwrite: bool
) -> None:
    """Degraded and restored side by side, a white line between them, as an 8-bit JPEG; a panorama above the other.

    Raises InputError where another one is there that is not to be overwritten; the same one a killed run left.
    """
    height, width = restored.shape[:2]
    beside = 2 * width + 4 <= _LONGEST
    line = np.full((height, 4, 3) if beside else (4, width, 3), 255, np.uint8)
    sides = [
        levels if levels.dtype == np.uint8 else (levels >> 8).astype(np.uint8) for levels in (photo.levels, restored)
    ]
    sheet = np.concatenate([sides[0], line, sides[1]], axis=1 if beside else 0)
    plain = Photo(levels=sheet, alpha=None, gray=photo.gray, format="JPEG", icc=photo.icc)
    content = files.encode_photo(plain, sheet)
    if not overwrite and _is_there(compared) and compared.read_bytes() != content:
        raise InputError(f"{compared} is there already; --overwrite replaces it")
    with replace_file(compared, like=source) as temporary:
        temporary.write_bytes(content)
