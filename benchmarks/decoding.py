"""What it costs to read and write a photograph in a process that can be killed, beside doing it in one's own.

    python -m benchmarks.decoding [--megapixels 12] [--rounds 40]

A JPEG with some noise, quality 90, is read and encoded, in turns by the library in this process and by a pool of one
process (`ipt.photos.file_processes`), after two rounds that are not counted. The times of a round lie next to one
another, so what else the machine does falls on both: the ratio is told of each round, as median and quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from ipt.photos.file_processes import FileProcesses
from ipt.photos.photo import Photo, encode_photo, read_photo

_UNCOUNTED = 2


def main() -> None:
    """Measure, and print a line for reading and one for encoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    levels = photograph(given.megapixels)
    plain = Photo(levels, None, False, "JPEG")
    data = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    height, width = levels.shape[:2]
    started = time.perf_counter()
    with FileProcesses() as files:
        files.read_photo(encode_photo(Photo(levels[:8, :8], None, False, "JPEG"), levels[:8, :8]))
        print(f"start of a process: {time.perf_counter() - started:.2f} s")
        print(f"JPEG of {width} x {height} pixels, {len(data) / 1e6:.1f} MB; {given.rounds} rounds")
        compare("read", lambda: read_photo(data), lambda: files.read_photo(data), given.rounds)
        own, pool = (lambda: encode_photo(plain, levels)), (lambda: files.encode_photo(plain, levels))
        compare("encode", own, pool, given.rounds)


def photograph(megapixels: float) -> np.ndarray:
    """A picture of 4 to 3 with details of all sizes and a little noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (round(height * 4 / 3), height)
    picture = np.zeros((height, size[0], 3), np.float32)
    for cells in (4, 16, 64, 256, 1024):
        drawn = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(drawn, size, interpolation=cv2.INTER_CUBIC) * (64 / cells**0.5)
    picture += rng.standard_normal(picture.shape, np.float32) * 3 + 128
    return picture.clip(0, 255).astype(np.uint8)


def compare(name: str, own: Callable[[], object], pool: Callable[[], object], rounds: int) -> None:
    """Print the seconds of both, and their ratio by round."""
    times = []
    for number in range(rounds + _UNCOUNTED):
        order = (own, pool) if number % 2 else (pool, own)
        taken = {function: seconds(function) for function in order}
        times.append((taken[own], taken[pool]))
    counted = times[_UNCOUNTED:]
    alone, there = (statistics.median(column) for column in zip(*counted, strict=True))
    low, middle, high = statistics.quantiles([other / one for one, other in counted], n=4)
    print(
        f"{name}: {alone * 1e3:.0f} ms here, {there * 1e3:.0f} ms in a process; "
        f"ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})"
    )


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes; what it returns is dropped after that."""
    started = time.perf_counter()
    kept = function()
    taken = time.perf_counter() - started
    del kept
    return taken


if __name__ == "__main__":
    main()
