"""Files of strangers, read and written in processes that can be killed: one bad file costs one error, whatever it does.

A decoder that crashes, hangs or takes all memory takes its process with it, and another one is started in its place.
The processes are no sandbox: they may do what this user may.
"""

from __future__ import annotations

import os
import queue
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ipt.files import replace_file
from ipt.photos.child import PROGRAM, Call, Child, EndedError, Limits
from ipt.photos.file_channel import Message, checked, whole
from ipt.photos.images import ImageError, TooManyPixelsError, to_image
from ipt.photos.look import Look
from ipt.photos.photo import Photo, check_levels
from ipt.photos.photo_message import pack_photo, unpack_photo

_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (TooManyPixelsError, ImageError, MemoryError, OSError, ValueError)
}
_MOST_WORDS = 2000  # characters of an error

Result = TypeVar("Result")


class GaveUpError(ImageError):
    """A file for which a process was ended, or ended; the message names the file and the reason."""


class FileProcesses:
    """`count` processes that do what the functions of `ipt.photos` of the same names do, for any number of threads.

    They start at once, beside what comes next in this program, and end with it, with `close` or with the block that
    this opens. Of each picture a process has at most `limits`. A `call` lets another thread give a picture up. Beside
    the errors of those functions they raise a GaveUpError for a file that takes more than the limits or ends its
    process, and a RuntimeError where no process can be started.
    """

    def __init__(self, count: int = 1, limits: Limits | None = None, program: str = PROGRAM) -> None:
        self._limits = limits or Limits.of()
        children = [Child(self._limits, program) for _ in range(count)]
        self._idle: queue.LifoQueue[Child] = queue.LifoQueue()
        for child in children:
            self._idle.put(child)
        self._close = weakref.finalize(self, _close, children)

    def read_photo(self, source: str | Path | bytes, max_pixels: int | None = None, call: Call | None = None) -> Photo:
        """`ipt.photos.photo.read_photo`."""
        most = self._limits.pixels if max_pixels is None else min(max_pixels, self._limits.pixels)
        name, values, texts = _source(source)
        asked = Message(values | {"job": "read_photo", "max_pixels": most}, texts=texts)
        return self._ask(name, asked, call, lambda answer: unpack_photo(answer, most))

    def read_image(self, source: str | Path | bytes, call: Call | None = None) -> np.ndarray:
        """`ipt.photos.images.read_image`."""
        name, values, texts = _source(source)
        return to_image(self._ask(name, Message(values | {"job": "read_levels"}, texts=texts), call, self._levels))

    def read_thumbnail(
        self, source: str | Path | bytes, side: int, call: Call | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """`ipt.photos.images.read_thumbnail`."""
        name, values, texts = _source(source)

        def take(answer: Message) -> tuple[np.ndarray, tuple[int, int]]:
            height, width = (whole(length, "size") for length in checked(answer.values["size"], list, "size"))
            return self._levels(answer), (height, width)

        asked = Message(values | {"job": "read_thumbnail", "side": side}, texts=texts)
        levels, size = self._ask(name, asked, call, take)
        return to_image(levels), size

    def encode_photo(self, photo: Photo, levels: np.ndarray, call: Call | None = None) -> bytes:
        """`ipt.photos.photo.encode_photo`."""
        return self._encode("image", photo, levels, call)

    def restored_file(
        self, photo: Photo, levels: np.ndarray, original: bytes, unchanged: bool, call: Call | None = None
    ) -> bytes:
        """`ipt.photos.photo.restored_file`."""
        return original if unchanged and not photo.foreign else self.encode_photo(photo, levels, call)

    def write_photo(
        self, photo: Photo, levels: np.ndarray, path: Path, like: Path | None = None, call: Call | None = None
    ) -> None:
        """`ipt.photos.photo.write_photo`; the file is written by this process."""
        data = self._encode(str(path), photo, levels, call)
        with replace_file(Path(path), like) as temporary:
            temporary.write_bytes(data)

    def look(self, image: bytes, max_pixels: int, call: Call | None = None) -> Look:
        """`ipt.photos.look.look` at the bytes of a file."""
        most = min(max_pixels, self._limits.pixels)
        asked = Message({"job": "look", "path": None, "max_pixels": most}, texts=[image])

        def take(answer: Message) -> Look:
            told = answer.values
            sizes = {name: whole(told[name], name) for name in ("width", "height", "bits")}
            shows, kind = checked(told["shows_file"], bool, "shows_file"), checked(told["format"], str, "format")
            return Look(**sizes, format=kind, shows_file=shows, preview=_shown(answer))

        return self._ask("image", asked, call, take)

    def preview(self, photo: Photo, levels: np.ndarray, call: Call | None = None) -> tuple[bytes, str]:
        """`ipt.photos.look.preview`."""
        check_levels(photo, levels)
        asked = pack_photo(photo, levels)
        asked.values["job"] = "preview"
        return self._ask("image", asked, call, _shown)

    def close(self) -> None:
        """End the processes; a picture that one is at work on is given up."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _encode(self, name: str, photo: Photo, levels: np.ndarray, call: Call | None) -> bytes:
        check_levels(photo, levels)
        asked = pack_photo(photo, levels)
        asked.values["job"] = "encode"
        return self._ask(name, asked, call, _text)

    def _levels(self, answer: Message) -> np.ndarray:
        (levels,) = answer.pixels
        height, width, channels = levels.shape
        if not 0 < height * width <= self._limits.pixels or not 1 <= channels <= 4:
            raise ValueError(f"pixels: got {levels.shape}")
        return levels

    def _ask(self, name: str, asked: Message, call: Call | None, take: Callable[[Message], Result]) -> Result:
        """What `take` makes of a free process's answer; raises the error that the process tells instead."""

        def take_answer(answer: Message) -> Result | Exception:
            return _error(name, answer.values) if "error" in answer.values else take(answer)

        child = self._idle.get()
        try:
            result = child.ask(asked, call or Call(), take_answer)
        except EndedError as ended:
            raise GaveUpError(f"{name}: {ended}") from ended
        finally:
            self._idle.put(child)
        if isinstance(result, Exception):
            raise result
        return result


def _close(children: list[Child]) -> None:
    for child in children:
        child.close()


def _source(source: str | Path | bytes) -> tuple[str, dict[str, Any], list[bytes]]:
    """What to call a file in errors, and the values and texts of a message that name it to a process."""
    if isinstance(source, bytes):
        return "image", {"path": None}, [source]
    return str(source), {"path": os.path.abspath(source)}, []


def _error(name: str, values: dict[str, Any]) -> Exception:
    """The error that a process tells of a file, which it knows by its whole path."""
    kinds = [checked(kind, str, "error") for kind in checked(values["error"], list, "error")]
    reason = checked(values["reason"], str, "reason")[:_MOST_WORDS]
    kind = next((_ERRORS[kind] for kind in kinds if kind in _ERRORS), None)
    if kind is None:
        return RuntimeError(f"{name}: {kinds[0] if kinds else 'Exception'}: {reason}")
    whole_path = f"{os.path.abspath(name)}: "
    return kind(f"{name}: {reason.removeprefix(whole_path)}" if reason.startswith(whole_path) else reason)


def _text(answer: Message) -> bytes:
    (content,) = answer.texts
    return content


def _shown(answer: Message) -> tuple[bytes, str]:
    """A preview and its media type."""
    kind = checked(answer.values["kind"], str, "kind")
    if kind not in ("image/jpeg", "image/png"):
        raise ValueError(f"kind: got {kind!r}")
    return _text(answer), kind
