"""Messages between a program and a process that reads files for it: JSON, bytes and pixels, nothing that is run."""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np

DTYPES = ("uint8", "uint16")  # of pixels
_MAX_HEADER = 1 << 24  # bytes of JSON; a PNG may have a hundred thousand texts
_ALIGNED = 64  # bytes between places of the area


@dataclass
class Message:
    """Values for JSON, arrays of pixels and texts: what is not pixels and need not be words."""

    values: dict[str, Any]
    pixels: Sequence[np.ndarray] = ()
    texts: Sequence[bytes] = field(default_factory=list)


class Area(Protocol):
    """Memory that both processes reach, for the pixels of one message at a time."""

    size: int

    def put(self, pixels: np.ndarray, place: int) -> None:
        """Copy C-contiguous pixels to byte `place`."""

    def take(self, place: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Pixels from byte `place`; ValueError where there are none."""


class FileArea:
    """An area as its owner sees it: a file, of which it takes copies, which nobody else can change."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file, self.size = file, size
        file.truncate(size)  # takes no memory before something is written

    def put(self, pixels: np.ndarray, place: int) -> None:
        """Copy C-contiguous pixels to byte `place`."""
        rest = pixels.reshape(-1).view(np.uint8).data
        self._file.seek(place)
        while rest:
            rest = rest[self._file.write(rest) :]

    def take(self, place: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A copy of the pixels from byte `place`; ValueError where the file is shorter."""
        pixels = np.empty(shape, dtype)
        rest = pixels.reshape(-1).view(np.uint8).data
        self._file.seek(place)
        while rest:
            read = self._file.readinto(rest)
            if not read:
                raise ValueError("pixels that are not there")
            rest = rest[read:]
        return pixels

    def free(self) -> None:
        """Give the memory back; what was put there is gone."""
        self._file.truncate(0)
        self._file.truncate(self.size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MappedArea:
    """An area as the process sees that reads files: arrays in it are the area itself, and cost no copy."""

    def __init__(self, number: int, size: int) -> None:
        self._bytes, self.size = np.frombuffer(mmap.mmap(number, size), np.uint8), size

    def put(self, pixels: np.ndarray, place: int) -> None:
        """Copy pixels to byte `place`, unless that is where they are."""
        there = self.take(place, pixels.shape, pixels.dtype)
        if there.ctypes.data != pixels.ctypes.data:
            there[...] = pixels.copy() if np.may_share_memory(there, pixels) else pixels

    def take(self, place: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The pixels from byte `place`, until the next message."""
        return self._bytes[place : place + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """An array where the first pixels of a message go, or elsewhere if it is larger than the area."""
        fits = math.prod(shape) * np.dtype(dtype).itemsize <= self.size
        return self.take(0, shape, np.dtype(dtype)) if fits else np.empty(shape, dtype)


class Channel:
    """Messages to and from another process, over two streams and, for pixels, an area where there is one.

    A message is the length of its header in 4 bytes, the header, which is JSON, then the texts, then what pixels the
    area had no room for. What comes is checked before it is believed; the values are the caller's to check.
    """

    def __init__(self, reader: BinaryIO, writer: BinaryIO, area: Area | None) -> None:
        self._reader, self._writer, self._area = reader, writer, area

    def send(self, message: Message) -> int:
        """Send a message; returns how many bytes of the area it takes."""
        pixels = [np.ascontiguousarray(array) for array in message.pixels]
        places, end = [], 0
        for array in pixels:
            fits = self._area is not None and end + array.nbytes <= self._area.size
            places.append(end if fits else None)
            if self._area is not None and fits:
                self._area.put(array, end)
                end += -(-array.nbytes // _ALIGNED) * _ALIGNED
        told = [[place, array.shape, array.dtype.name] for place, array in zip(places, pixels, strict=True)]
        header = {"values": message.values, "pixels": told, "texts": [len(text) for text in message.texts]}
        encoded = json.dumps(header).encode()
        self._writer.write(struct.pack(">L", len(encoded)) + encoded)
        for text in message.texts:
            self._writer.write(text)
        for place, array in zip(places, pixels, strict=True):
            if place is None:
                self._writer.write(array.reshape(-1).view(np.uint8).data)
        self._writer.flush()
        return end

    def receive(self, most: int) -> Message:
        """The next message, with at most `most` bytes of texts, and of pixels.

        Raises EOFError where the other process has ended and ValueError for what is no message.
        """
        (length,) = struct.unpack(">L", self._read(4))
        if length > _MAX_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = checked(json.loads(self._read(length)), dict, "header")
        told = [_array(entry) for entry in checked(header.get("pixels"), list, "pixels")]
        sizes = [whole(size, "texts") for size in checked(header.get("texts"), list, "texts")]
        if sum(sizes) > most or sum(math.prod(shape) * dtype.itemsize for _, shape, dtype in told) > most:
            raise ValueError(f"a message of more than {most} bytes")
        texts = [self._read(size) for size in sizes]
        return Message(checked(header.get("values"), dict, "values"), [self._take(*entry) for entry in told], texts)

    def close(self) -> None:
        """Close the streams."""
        for stream in (self._reader, self._writer):
            with contextlib.suppress(OSError):  # what was not sent any more
                stream.close()

    def _take(self, place: int | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        if place is None:
            return np.frombuffer(bytearray(self._read(size)), dtype).reshape(shape)
        if self._area is None or place + size > self._area.size:
            raise ValueError("pixels outside of the area")
        return self._area.take(place, shape, dtype)

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError
        return data


def _array(entry: Any) -> tuple[int | None, tuple[int, ...], np.dtype]:
    """Place, shape and dtype of pixels as a header tells them."""
    place, shape, name = checked(entry, list, "pixels")
    if name not in DTYPES or not 2 <= len(checked(shape, list, "shape")) <= 3:
        raise ValueError(f"pixels: expected {' or '.join(DTYPES)} (H, W) or (H, W, C), got {name!r} {shape!r}")
    sides = tuple(whole(side, "shape") for side in shape)
    return None if place is None else whole(place, "place"), sides, np.dtype(name)


def checked(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    """`value`, which has to be of this very type, or one of these; else ValueError."""
    if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
        raise ValueError(f"{name}: got a {type(value).__name__}")
    return value


def whole(value: Any, name: str) -> int:
    """`value`, which has to be a whole number, at least 0; else ValueError."""
    if checked(value, int, name) < 0:
        raise ValueError(f"{name}: got {value}")
    return value
