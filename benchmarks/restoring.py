"""What restoring a large picture takes: seconds and memory, and whether the tiles can be seen.

    python -m benchmarks.restoring [--megapixels 24]

The picture is made of the default photographs, side by side, in 8 bits. Memory is the peak of the process above what it
holds with model and picture loaded. For the seams, the largest mean step between neighbouring rows and columns of the
change (restored minus degraded) at the middle of the overlaps is set beside the largest one anywhere else.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch

from ipt import InstructIPT, preset_config
from ipt.pixels import to_levels
from ipt.restoring.memory import affordable_tile
from ipt.restoring.restore import restore_tasks
from ipt.restoring.tiles import BLEND, spans
from pipelines.common.params import Builtin, Source
from pipelines.pictures.sources import list_pictures, read_picture

MODEL = Path("models/compressed")


def main() -> None:
    """Measure the trained model on a large picture, and the presets in seconds per megapixel on one megapixel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=24)
    megapixels = parser.parse_args().megapixels
    model = InstructIPT.from_pretrained(MODEL)
    picture = mosaic(megapixels)
    height, width = picture.shape[:2]
    tile = affordable_tile(model.config, model.backbone.reach, torch.device("cpu"))
    print(f"{height} x {width} pixels, tiles of {tile}, {torch.get_num_threads()} threads", flush=True)
    for task in model.config.tasks:
        started = time.perf_counter()
        with peak_memory() as peak:
            restored = restore_tasks(model, picture, [task])
        seconds = time.perf_counter() - started
        at_seams, elsewhere = steps(picture, restored, model, tile)
        print(
            f"{task}: {seconds / megapixels:.2f} s per megapixel, {peak[0] / 1e9:.2f} GB above model and picture; "
            f"largest step {at_seams:.3f} grey levels in the overlaps, {elsewhere:.3f} elsewhere",
            flush=True,
        )
    for preset in ("tiny", "small"):
        config = preset_config(preset, model.config.tasks, model.config.rank, ("head",))
        started = time.perf_counter()
        restore_tasks(InstructIPT(config).eval(), mosaic(1), [config.tasks[0]])
        print(f"preset {preset}: {time.perf_counter() - started:.2f} s for a megapixel", flush=True)


def mosaic(megapixels: float) -> np.ndarray:
    """The default photographs, each 500 x 500, repeated in rows to a picture of 3 to 2, uint8."""
    source = Source(None, Builtin((1.0,)), None)
    photographs = [read_picture(picture) for picture in list_pictures(source, 0)]
    squares = [to_levels(cv2.resize(photo, (500, 500))) for photo in photographs]
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(height * 1.5)
    rows = [
        np.concatenate([squares[(row * 7 + column) % len(squares)] for column in range(-(-width // 500))], 1)
        for row in range(-(-height // 500))
    ]
    return np.ascontiguousarray(np.concatenate(rows)[:height, :width])


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yields a list whose item is, after the block, the most memory (bytes) held in it above that at its start."""
    process, stop, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def steps(picture: np.ndarray, restored: np.ndarray, model: InstructIPT, tile: int) -> tuple[float, float]:
    """The largest mean step of the change between neighbouring lines inside the overlaps, and outside of them."""
    at_seams, elsewhere = [0.0], [0.0]
    change = restored.astype(np.int16) - picture
    reach = model.backbone.reach
    for axis in (0, 1):
        line_steps = np.array(
            [
                np.abs(np.take(change, i + 1, axis) - np.take(change, i, axis)).mean()
                for i in range(picture.shape[axis] - 1)
            ]
        )
        near = np.zeros(len(line_steps), bool)
        tiles = spans(picture.shape[axis], tile, reach, model.config.size_multiple)
        for (_, stop), (start, _) in itertools.pairwise(tiles):
            middle = (start + stop) // 2
            near[middle - BLEND : middle + BLEND] = True
        at_seams += line_steps[near].tolist()
        elsewhere += line_steps[~near].tolist()
    return max(at_seams), max(elsewhere)


if __name__ == "__main__":
    main()
