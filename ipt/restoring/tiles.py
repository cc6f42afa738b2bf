"""A picture of any size through a function of small ones: overlapping tiles, smooth weights, a band at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ipt.pixels import from_unit, to_unit

BLEND = 32  # pixels over which one tile gives way to the next


def restore_in_tiles(
    image: np.ndarray, restore: Callable[[np.ndarray], np.ndarray], *, tile: int, reach: int, multiple: int
) -> np.ndarray:
    """Apply `restore`, float32 (h, w, 3) to the same shape, to tiles of an image (H, W, 3) of 8 or 16 bits or float32.

    `reach` is how many pixels to each side an output pixel depends on: pixels nearer than that to a cut are not used,
    so where this is all that `restore` sees, the result is that of the whole picture. Tiles begin at multiples of
    `multiple`. Beside the image and the result, both of the image's dtype, memory is that of one row of tiles.
    Raises ValueError where `tile` is too small to hold what neighbours must share.
    """
    height, width = image.shape[:2]
    rows, columns = (spans(length, tile, reach, multiple) for length in (height, width))
    row_weights, column_weights = weights(rows, reach), weights(columns, reach)
    result = np.empty_like(image)
    begun = np.zeros((0, width, 3), np.float32)  # rows that the band before has begun
    for number, (top, bottom) in enumerate(rows):
        band = np.zeros((bottom - top, width, 3), np.float32)
        band[: len(begun)] = begun
        for (left, right), across in zip(columns, column_weights, strict=True):
            weight = row_weights[number][:, None, None] * across[:, None]
            band[:, left:right] += restore(to_unit(image[top:bottom, left:right])) * weight
        done = (rows[number + 1][0] if number + 1 < len(rows) else height) - top
        result[top : top + done] = from_unit(band[:done], image.dtype)
        begun = band[done:]
    return result


def spans(length: int, tile: int, reach: int, multiple: int) -> list[tuple[int, int]]:
    """First and last-but-one pixels of tiles that cover `length`, each at most `tile` long."""
    if length <= tile:
        return [(0, length)]
    step = (tile - 2 * reach - BLEND) // multiple * multiple
    if step <= 0:
        raise ValueError(
            f"tile: expected at least {2 * reach + BLEND + multiple} pixels for a network that sees {reach} pixels to "
            f"each side, got {tile}"
        )
    starts = range(0, length - tile + step, step)
    return [(start, min(start + tile, length)) for start in starts]


def weights(tiles: list[tuple[int, int]], reach: int) -> list[np.ndarray]:
    """For each span the weight of its pixels: 0 within `reach` of a cut, then rising smoothly; 1 in all at a pixel."""
    length = tiles[-1][1]
    raw = []
    for start, stop in tiles:
        pixels = np.arange(start, stop) + 0.5
        from_left = np.clip((pixels - start - reach) / BLEND, 0, 1) if start > 0 else np.ones(stop - start)
        from_right = np.clip((stop - pixels - reach) / BLEND, 0, 1) if stop < length else np.ones(stop - start)
        ramp = from_left * from_right
        raw.append(ramp * ramp * (3 - 2 * ramp))
    total = np.zeros(length)
    for (start, stop), weight in zip(tiles, raw, strict=True):
        total[start:stop] += weight
    return [(weight / total[start:stop]).astype(np.float32) for (start, stop), weight in zip(tiles, raw, strict=True)]
