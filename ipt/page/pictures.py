"""From the bytes that came to a photograph, or to what a browser is shown of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ipt.page.requests import RequestError
from ipt.photos.child import Call
from ipt.photos.file_processes import FileProcesses
from ipt.photos.images import ImageError, TooManyPixelsError
from ipt.photos.look import Look
from ipt.photos.photo import Photo


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what is wrong with a picture into a RequestError: 413 for too many pixels, 422 for another ImageError."""
    try:
        yield
    except TooManyPixelsError as error:
        raise RequestError(413, str(error)) from error
    except ImageError as error:
        raise RequestError(422, str(error)) from error


def read_picture(files: FileProcesses, image: bytes, max_pixels: int, call: Call | None = None) -> Photo:
    """Read what came; a RequestError of 413 for more than `max_pixels`, of 422 for what `read_photo` refuses."""
    with refusing():
        return files.read_photo(image, max_pixels, call)


def look(files: FileProcesses, image: bytes, max_pixels: int, call: Call | None = None) -> Look:
    """Read what came to be looked at; raises the RequestErrors of `read_picture`."""
    with refusing():
        return files.look(image, max_pixels, call)
