"""What Pillow and OpenCV cannot do with TIFF: 16 bits in all layouts, and writing with every tag that must survive."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from ipt.photos.tags import SHORT, Order, Tags, change_entries, entry, numbers, pack_header, pack_tags, read_tags

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
SAMPLES, PLANAR, PREDICTOR, EXTRA_SAMPLES, SAMPLE_FORMAT = 277, 284, 317, 338, 339
STRIP_OFFSETS, STRIP_ROWS, STRIP_SIZES = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 322, 323, 324, 325
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
_NOBODYS = 65000  # a tag that means nothing
_BIG = (b"II+\0", b"MM\0+")
_STARTS = (b"II*\0", b"MM\0*", *_BIG)
_STRIP_BYTES = 1 << 18


def for_pillow(data: bytes) -> bytes:
    """A TIFF file's bytes as Pillow can open them, to ask for anything but pixels; other files as they are.

    Pillow refuses 16-bit gray with alpha, or from white to black; told that it is plain gray, it does not. Raises
    ValueError for pixels without a fixed range (32-bit, floating point) and for what Pillow would read wrongly.
    """
    if not data.startswith(_STARTS):
        return data
    order, tags = read_tags(data)
    bits = numbers(order, tags, BITS, 1)
    if max(bits) > 16 or set(numbers(order, tags, SAMPLE_FORMAT, 1)) - {1}:
        kind = "floating point" if 3 in numbers(order, tags, SAMPLE_FORMAT, 1) else f"signed or {max(bits)}-bit"
        raise ValueError(f"{kind} pixels have no fixed range; save it with 8 or 16 bits")
    if bits == (8, 8) and numbers(order, tags, PLANAR, 1) == (2,):  # Pillow mixes them up
        raise ValueError("8-bit gray and alpha in separate planes; save it with interleaved channels")
    if bits not in {(16,), (16, 16)} or numbers(order, tags, PHOTOMETRIC, 0)[0] > 1 or data.startswith(_BIG):
        return data
    plain = {BITS: (BITS, 16), SAMPLES: (SAMPLES, 1), PHOTOMETRIC: (PHOTOMETRIC, 1), EXTRA_SAMPLES: (_NOBODYS, 0)}
    return bytes(change_entries(data, plain)[0])


def read_levels(data: bytes, sides: tuple[int, int]) -> np.ndarray:
    """The pixels of a 16-bit TIFF as uint16 (H, W, C), not yet turned upright: gray, gray and alpha, RGB or RGBA.

    `sides` in any order are what another reader made of its size, and what limits were held against. Raises ValueError
    for another size, damage and a layout that is none of these.
    """
    order, tags = read_tags(data)
    (width,), (height,) = numbers(order, tags, WIDTH, 0)[:1], numbers(order, tags, HEIGHT, 0)[:1]
    if sorted(sides) != sorted((width, height)):
        raise ValueError(f"it says that it is {width} x {height} pixels and {sides[0]} x {sides[1]} as well")
    (photometric,), (samples,) = numbers(order, tags, PHOTOMETRIC, 0), numbers(order, tags, SAMPLES, 1)
    (compression,) = numbers(order, tags, COMPRESSION, NONE)
    if compression not in (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS):
        raise ValueError(f"a 16-bit TIFF with compression {compression}; save it with LZW, deflate or none")
    if (photometric, samples) not in {(0, 1), (0, 2), (1, 1), (1, 2), (2, 3), (2, 4)}:
        raise ValueError("a 16-bit TIFF that is neither gray nor RGB; save it as 16-bit PNG")
    if numbers(order, tags, PLANAR, 1) == (2,):
        planes = [_read_plane(data, order, tags, 1, samples, plane) for plane in range(samples)]
        levels = np.concatenate(planes, axis=2)
    else:
        levels = _read_plane(data, order, tags, samples, 1, 0)
    if photometric == 0:  # white is 0
        np.subtract(65535, levels[..., 0], out=levels[..., 0])
    extra = numbers(order, tags, EXTRA_SAMPLES, 2)[:1]
    if samples in (2, 4) and extra == (0,):
        return levels[..., :-1]  # something, but not alpha
    return _unmultiply(levels) if samples in (2, 4) and extra == (1,) else levels


def _read_plane(data: bytes, order: str, tags: Tags, samples: int, planes: int, plane: int) -> np.ndarray:
    """(H, W, samples) of one of `planes` equal parts of the file.

    OpenCV unpacks it as gray of `samples` times its width, so that no layout is beyond it.
    """
    (width,), (height,) = numbers(order, tags, WIDTH, 0), numbers(order, tags, HEIGHT, 0)
    tiled = TILE_OFFSETS in tags
    offsets, sizes = (TILE_OFFSETS, TILE_SIZES) if tiled else (STRIP_OFFSETS, STRIP_SIZES)
    places, lengths = numbers(order, tags, offsets), numbers(order, tags, sizes)
    if not places or len(places) != len(lengths):
        raise ValueError("it does not say where all its pixels are")
    if any(place + length > len(data) for place, length in zip(places, lengths, strict=True)):
        raise ValueError("the file is truncated")
    part = slice(plane * len(places) // planes, (plane + 1) * len(places) // planes)
    gray: Tags = {
        WIDTH: entry(order, width * samples),
        PHOTOMETRIC: entry(order, 1, kind=SHORT),
        BITS: entry(order, 16, kind=SHORT),
        offsets: entry(order, *places[part]),
        sizes: entry(order, *lengths[part]),
    }
    gray |= {tag: tags[tag] for tag in (HEIGHT, COMPRESSION, FILL_ORDER, STRIP_ROWS, TILE_HEIGHT) if tag in tags}
    step = numbers(order, tags, TILE_WIDTH, width)[0] if tiled else width
    if tiled:
        gray[TILE_WIDTH] = entry(order, step * samples)
    levels = _decode_quietly(_with_directory(data, order, gray))
    if levels is None or levels.dtype != np.uint16 or levels.shape != (height, width * samples):
        raise ValueError("damaged, or packed in a way that is not supported; save it as 16-bit PNG")
    levels = levels.reshape(height, width, samples)
    if numbers(order, tags, PREDICTOR, 1) == (2,):  # each pixel is stored as the difference from its left neighbour
        for left in range(0, width, step):
            block = levels[:, left : left + step]
            np.cumsum(block, axis=1, dtype=np.uint16, out=block)
    return levels


def _decode_quietly(data: bytearray) -> np.ndarray | None:
    """What OpenCV reads, None for damage; it would also print what it thinks of the damage."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _with_directory(data: bytes, order: str, tags: Tags) -> bytearray:
    """The file with another first directory, behind all else; what its entries point to stays in place."""
    whole = bytearray(data)
    whole += bytes(len(data) % 2)
    whole[:8] = pack_header(order, len(whole))
    whole += pack_tags(order, tags, len(whole))
    return whole


def _unmultiply(levels: np.ndarray) -> np.ndarray:
    """Colours that were stored times their alpha, divided by it; where alpha is 0 they are lost and stay."""
    alpha = levels[..., -1:]
    divisor = np.maximum(alpha, 1).astype(np.uint32)
    colour = np.minimum((levels[..., :-1] * np.uint32(65535) + divisor // 2) // divisor, 65535).astype(np.uint16)
    return np.concatenate([np.where(alpha > 0, colour, levels[..., :-1]), alpha], axis=2)


def encode(pixels: np.ndarray, order: Order, tags: Tags, compression: int) -> bytes:
    """A TIFF file of uint8 or uint16 (H, W, C) pixels, C as in `read_levels`, with `tags` beside those of the layout.

    A `compression` that loses something, or that is not written here, becomes deflate.
    """
    height, width, channels = pixels.shape
    compression = compression if compression in (NONE, LZW, DEFLATE, PACKBITS) else DEFLATE
    predictor = 2 if compression in (LZW, DEFLATE) else 1
    rows = max(1, min(height, _STRIP_BYTES // (width * channels * pixels.itemsize)))
    strips = [_pack_strip(pixels[top : top + rows], order, compression, predictor) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    layout = {
        WIDTH: entry(order, width),
        HEIGHT: entry(order, height),
        BITS: entry(order, *[pixels.itemsize * 8] * channels, kind=SHORT),
        COMPRESSION: entry(order, compression, kind=SHORT),
        PHOTOMETRIC: entry(order, 2 if channels > 2 else 1, kind=SHORT),
        STRIP_OFFSETS: entry(order, *(8 + np.cumsum([0, *sizes[:-1]])).tolist()),
        SAMPLES: entry(order, channels, kind=SHORT),
        STRIP_ROWS: entry(order, rows),
        STRIP_SIZES: entry(order, *sizes),
        PLANAR: entry(order, 1, kind=SHORT),
        PREDICTOR: entry(order, predictor, kind=SHORT),
    }
    if channels in (2, 4):
        layout[EXTRA_SAMPLES] = entry(order, 2, kind=SHORT)
    strips.append(bytes(sum(sizes) % 2))
    start = 8 + sum(sizes) + len(strips[-1])
    return b"".join([pack_header(order, start), *strips, pack_tags(order, tags | layout, start)])


def _pack_strip(strip: np.ndarray, order: Order, compression: int, predictor: int) -> bytes:
    if predictor == 2:
        left, strip = strip, strip.copy()
        strip[:, 1:] -= left[:, :-1]
    packed = np.ascontiguousarray(strip, strip.dtype.newbyteorder(order))
    if compression == NONE:
        return packed.tobytes()
    if compression == DEFLATE:
        return zlib.compress(packed.data)
    rows = packed.view(np.uint8).reshape(len(packed), -1)  # for OpenCV these bytes are a gray picture
    options = {
        cv2.IMWRITE_TIFF_COMPRESSION: compression,
        cv2.IMWRITE_TIFF_PREDICTOR: 1,
        cv2.IMWRITE_TIFF_ROWSPERSTRIP: len(rows),
    }
    done, picture = cv2.imencode(".tif", rows, [number for option in options.items() for number in option])
    if not done:
        raise ValueError(f"OpenCV cannot pack TIFF with compression {compression}")
    data = picture.tobytes()
    ours, tags = read_tags(data)
    (place,), (size,) = numbers(ours, tags, STRIP_OFFSETS), numbers(ours, tags, STRIP_SIZES)
    return data[place : place + size]
