"""What is fuzzed: for each reader what an input goes through, what may refuse it, and how it is changed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from fuzz.bodies import change_request
from fuzz.checkpoints import change_checkpoint, split_checkpoint
from fuzz.directories import change_tiff
from fuzz.limits import limits
from fuzz.mutators import change_picture, cross_pictures
from fuzz.raw import Change, change_bytes
from ipt.network.checkpoint import CONFIG, WEIGHTS, load_checkpoint
from ipt.network.task_network import TaskNetwork
from ipt.page.guard import Guard
from ipt.page.requests import Order, RequestError, check_order, read_body, read_order
from ipt.photos import images, png, tiff
from ipt.photos.images import ImageError, read_image, read_thumbnail
from ipt.photos.look import preview
from ipt.photos.photo import encode_photo, read_photo
from ipt.photos.tags import pack_header, pack_tags, read_tags, upright_exif
from ipt.weights import CheckpointError
from pipelines.common.plain_yaml import read_plain

if TYPE_CHECKING:
    from ipt.model import InstructIPT

MAX_PIXELS = 12_000_000  # as the service has it; what more pixels cost is known before they are decoded
MAX_BODY = 1_000_000
_WRITTEN = 250_000  # pixels of a picture that is written again: to write more costs by their number alone
_EXACT = ("PNG", "TIFF", "BMP")


@dataclass(frozen=True)
class Target:
    """A reader under test.

    check: what an input goes through, within the limits; an AssertionError is a finding too.
    refusals: all that it may raise.
    change: makes another input of one.
    cross: makes one of two.
    share: of the time, in parts of the sum of all.
    """

    check: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...]
    change: Callable[[bytes, random.Random, Change], bytes]
    share: int
    cross: Callable[[bytes, bytes, random.Random], bytes] | None = None

    def run(self, data: bytes) -> bool:
        """Whether `data` was taken, not refused; what it may not raise, and CostlyError, is a finding."""
        try:
            with limits():
                self.check(data)
        except self.refusals:
            return False
        return True


def check_photo(data: bytes) -> None:
    """Read as a photograph, written in its own format and for a browser, and read again."""
    photo = read_photo(data, MAX_PIXELS)
    assert photo.levels.dtype in (np.uint8, np.uint16)
    assert photo.levels.ndim == photo.levels.shape[2] == 3
    assert photo.alpha is None or (photo.alpha.shape, photo.alpha.dtype) == (photo.levels.shape[:2], photo.levels.dtype)
    if photo.levels[..., 0].size > _WRITTEN:
        return
    written = encode_photo(photo, photo.levels)
    try:
        again = read_photo(written)
    except ImageError as error:
        raise AssertionError(f"what was written cannot be read: {error}") from error
    assert again.levels.shape == photo.levels.shape
    if photo.format in _EXACT or photo.lossless:
        assert np.array_equal(again.levels, photo.levels)
        assert photo.alpha is None or np.array_equal(again.alpha, photo.alpha)
    preview(photo, photo.levels)


def check_image(data: bytes) -> None:
    """Read as an image and as a thumbnail, which agree about its size."""
    path = _folder() / "image"
    path.write_bytes(data)
    with mock.patch.object(images, "MAX_PIXELS", MAX_PIXELS):
        image = read_image(path)
        thumbnail, size = read_thumbnail(path, 8)
    assert image.dtype == thumbnail.dtype == np.float32
    assert image.shape == (*size, 3)
    assert 0 <= image.min() <= image.max() <= 1


def check_tags(data: bytes) -> None:
    """Read as a directory of tags, packed again, made upright, and looked at as a TIFF and a PNG."""
    with contextlib.suppress(ValueError):
        tiff.for_pillow(data)
    png.other_colours(png.read_chunks(data))
    upright = upright_exif(data)
    assert upright is None or len(upright) == len(data)
    order, tags = read_tags(data)
    packed = pack_header(order, 8) + pack_tags(order, tags, 8)
    assert read_tags(packed)[1].keys() <= tags.keys()


def check_request(data: bytes) -> None:
    """Headers, a blank line and a body, through all that stands before the picture is decoded."""
    from starlette.datastructures import Headers
    from starlette.requests import Request

    head, _, body = data.partition(b"\n\n")
    lines = (line.partition(b":") for line in head.split(b"\n"))
    raw = [(name.strip().lower(), value.strip()) for name, _, value in lines]
    size = len(body) // 3 + 1
    pieces = [body[start : start + size] for start in range(0, len(body), size)] or [b""]

    async def receive() -> dict:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": len(pieces) > 0}

    async def through() -> Order:
        request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
        return await read_order(request.headers, await read_body(request, MAX_BODY, 60))

    with contextlib.suppress(RequestError):
        Guard(None).check(Headers(raw=raw))
    try:
        order = _loop().run(through())
        assert order.image
        assert all(isinstance(wish, str | None) for wish in (order.task, order.instruction))
        check_order(_model(), order)
    except RequestError as refusal:
        _check_line(refusal)
        raise


def _check_line(refusal: RequestError) -> None:
    assert refusal.status in (400, 413, 415)
    assert len(str(refusal).splitlines()) == 1
    assert len(str(refusal)) < 400


def check_checkpoint(data: bytes) -> None:
    """A config and weights, as a folder without checksums."""
    folder = _folder() / "checkpoint"
    folder.mkdir(exist_ok=True)
    for name, content in zip((CONFIG, WEIGHTS), split_checkpoint(data), strict=True):
        (folder / name).write_bytes(content)
    network = load_checkpoint(TaskNetwork, folder)
    assert all(weights.isfinite().all() for weights in network.state_dict().values())


def check_yaml(data: bytes) -> None:
    """As params.yaml is read, before its keys are looked at."""
    path = _folder() / "params.yaml"
    path.write_bytes(data)
    json.dumps(read_plain(path))


@functools.cache
def _folder() -> Path:
    """A folder of this process, that goes when it ends."""
    folder = tempfile.TemporaryDirectory()
    _folder.kept = folder
    return Path(folder.name)


@functools.cache
def _loop() -> asyncio.Runner:
    return asyncio.Runner()


@functools.cache
def _model() -> InstructIPT:
    from ipt.model import InstructIPT
    from ipt.network.config import preset_config

    return InstructIPT(preset_config("tiny", ("derain", "dehaze"), 1, ("*.expand",)))


TARGETS = {
    "photo": Target(check_photo, (ImageError,), change_picture, 5, cross_pictures),
    "image": Target(check_image, (ImageError,), change_picture, 2, cross_pictures),
    "tags": Target(check_tags, (ValueError,), change_tiff, 1),
    "request": Target(check_request, (RequestError,), change_request, 3),
    "checkpoint": Target(check_checkpoint, (CheckpointError,), change_checkpoint, 1),
    "yaml": Target(check_yaml, (ValueError,), change_bytes, 1),
}
