"""One photograph, from its file to the restored file, and what became of it."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ipt.files import is_there, replace_file
from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.photos import photo as in_this_process
from ipt.photos import png
from ipt.photos.images import FORMATS, ImageError
from ipt.photos.photo import Photo
from ipt.restoring.finding import COMPARED, InputError
from ipt.restoring.memory import out_of_memory
from ipt.restoring.restore import Plan, Quality, plan_restoration, restore_tasks
from ipt.restoring.tiles import spans

_LONGEST = 65500  # pixels, side of a JPEG
_GRAY_PROFILE = b"GRAY"  # the colour space in the head of an ICC profile


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


def check_request(model: InstructIPT, request: Request) -> None:
    """Raise ValueError for what would go wrong with every file: an unknown task, a strength or tile out of range."""
    probe = np.zeros((1, 1, 3), np.float32)
    plan = plan_restoration(model, probe, task=request.task, instruction=request.instruction)
    restore_tasks(model, probe, plan.tasks, strength=request.strength, tile=request.tile, precision=request.precision)
    if request.tile is not None:  # too small for any picture that has to be cut
        reach = model.backbone.reach * max(len(plan.tasks), 1)
        spans(request.tile + 1, request.tile, reach, model.config.size_multiple)


def restore_file(
    model: InstructIPT,
    source: Path,
    target: Path,
    request: Request,
    files: PhotoFiles = in_this_process,
    memory: int | None = None,
) -> Report:
    """Restore the photograph `source` into `target`, whole or not at all, and say what was done.

    A clean one is copied byte for byte. A target whose suffix names another format than the source's becomes a file of
    that format; one that is an empty file is not there. `memory` is what tiles may take, as in `restore_tasks`. What
    goes wrong is told in the report; what would go wrong with every file, `check_request` tells.
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
        restored = _restored(model, photo, plan, request, memory)
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


def _restored(model: InstructIPT, photo: Photo, plan: Plan, request: Request, memory: int | None) -> np.ndarray:
    return restore_tasks(
        model,
        photo.levels,
        plan.tasks,
        strength=request.strength,
        tile=request.tile,
        memory=memory,
        precision=request.precision,
        quality=request.quality,
    )


def _is_done(source: Path, target: Path, request: Request) -> bool:
    """Whether `target` is there and stays; raises an InputError or OSError where it cannot be written."""
    if target.is_dir():
        raise InputError(f"{target} is a folder")
    if not request.overwrite and is_there(target):
        if source.exists() and target.samefile(source):
            reason = "the restored version would replace it; name another folder, or ask for that with --overwrite"
            raise InputError(reason)
        return True
    if request.compare:
        is_there(_compared(target))  # a name that is too long is told before the work, where its folder is there
    return False


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
    if not overwrite and is_there(compared) and compared.read_bytes() != content:
        raise InputError(f"{compared} is there already; --overwrite replaces it")
    with replace_file(compared, like=source) as temporary:
        temporary.write_bytes(content)
