"""What a task's recipe is worth: a network that learns this task alone, on a folder of photographs, measured on real
pairs that it never saw.

    python -m benchmarks.usefulness --task derain --clean FOLDER [--steps 5000] [--enlarge 1 2.5]

The preset, recipe, learning rate and real pairs are those of params.yaml; no DVC, Ray or MLflow. Damage and crops are
drawn anew while it trains, in a process beside it. `--enlarge` draws a factor for each photograph: large pictures
are softer at the pixel than small ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import Module

from degradations.recipe import degrade, rng_for
from ipt.network.task_network import TaskNetwork
from ipt.photos.images import read_image
from ipt.pixels import to_levels
from ipt.training.batch import Batch
from ipt.training.fit import StepReport, TrainingState, fit
from pipelines.common.params import Params, load_params
from pipelines.scoring.real_pairs import read_real_pairs
from pipelines.scoring.scores import score_pairs
from pipelines.training.batches import Groups, training_batches
from pipelines.training.choice import model_config, read_choice, training_settings
from pipelines.training.crops import cut_squares, draw_cuts
from pipelines.training.groups import mixed_seed

TILE = 128  # pixels that are degraded around each crop: streaks and depth need room
BATCH = 8


@functools.lru_cache(maxsize=1000)
def photograph(path: Path) -> np.ndarray:
    """A file's picture as (H, W, 3) RGB uint8, kept: decoding it again would cost as much as damaging it."""
    return to_levels(read_image(path))


@dataclass(frozen=True)
class Source:
    """What pairs are made of."""

    files: list[Path]
    task: str
    recipe: list
    enlarge: tuple[float, float]
    crop: int


def make_pair(source: Source, path: Path, number: int) -> np.ndarray:
    """Pair `number` of the endless training set, degraded and clean: (2, 3, crop, crop) uint8."""
    rng = np.random.default_rng([mixed_seed(number), 1])
    clean = clean_tile(photograph(path), rng.uniform(*source.enlarge), rng)
    degraded, _ = degrade(clean, source.recipe, rng_for(0, source.task, path.name, number))
    pair = np.stack([to_levels(degraded), to_levels(clean)])
    cut = draw_cuts([rng], 1, clean.shape, source.crop)[[0, 0]]  # the same of both
    return cut_squares(pair, [0, 1], cut, source.crop)


def clean_tile(photo: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """A random tile of an enlarged photograph, float32 (TILE, TILE, 3) in [0, 1]."""
    factor = max(factor, TILE / min(photo.shape[:2]))
    side = min(math.ceil(TILE / factor), *photo.shape[:2])  # only what the tile shows is enlarged
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    part = photo[top : top + side, left : left + side].astype(np.float32) / 255
    if factor == 1:
        return part
    return cv2.resize(part, (TILE, TILE), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def make_batch(source: Source, number: int) -> np.ndarray:
    """Batch `number`, (BATCH, 2, 3, crop, crop) uint8: every photograph once in each pass, in an order of its own."""
    files, numbers = source.files, range(number * BATCH, (number + 1) * BATCH)
    places = [
        np.random.default_rng([1, pair // len(files)]).permutation(len(files))[pair % len(files)] for pair in numbers
    ]
    return np.stack([make_pair(source, files[place], pair) for place, pair in zip(places, numbers, strict=True)])


def batches(pool: ProcessPoolExecutor, source: Source) -> Iterator[Batch]:
    """Endless batches, made ahead in another process."""

    def steps() -> Iterator[Groups]:
        pending = [pool.submit(make_batch, source, number) for number in range(8)]
        for number in itertools.count(8):
            pairs = pending.pop(0).result()
            pending.append(pool.submit(make_batch, source, number))
            yield {"degraded": pairs[None, :, 0], "clean": pairs[None, :, 1]}

    return training_batches(steps(), [0] * BATCH)


def train_alone(params: Params, source: Source, steps: int) -> Module:
    """The averaged model after `steps`."""
    torch.manual_seed(params.seed)
    model = TaskNetwork(dataclasses.replace(model_config(params, read_choice()), tasks=(source.task,)))
    settings = dataclasses.replace(training_settings(params, steps, bf16=False), task_weights=(1.0,))
    state = TrainingState(model, settings)
    started = time.monotonic()

    def watch(report: StepReport) -> None:
        if report.step % 500 == 0:
            print(f"step {report.step}/{steps}, {time.monotonic() - started:.0f} s, loss {report.loss:.5f}", flush=True)

    with ProcessPoolExecutor(1) as pool:
        fit(state, batches(pool, source), on_step=watch)
    return state.ema.module.eval()


def main() -> None:
    """Train, then print the PSNR and SSIM on the real pairs of the task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--clean", required=True, type=Path, help="folder of clean photographs")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--enlarge", nargs=2, type=float, default=(1.0, 1.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--crop", type=int, help="pixels; ingest.crop of params.yaml where not given")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    params = load_params()
    files = sorted(path for path in given.clean.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    recipe, crop = params.tasks[given.task].recipe, given.crop or params.ingest.crop
    started = time.monotonic()
    model = train_alone(params, Source(files, given.task, recipe, tuple(given.enlarge), crop), given.steps)
    seconds = time.monotonic() - started
    print(f"{given.task}: {len(files)} photographs, {given.steps} steps of {BATCH} crops in {seconds:.0f} s")
    for pairs in params.evaluate.real_pairs:
        if pairs.task == given.task and (Path(pairs.path) / "clean").is_dir():
            scores = score_pairs({"restored": model}, given.task, read_real_pairs(pairs, params.seed))
            print(f"{pairs.name}: {scores}")


if __name__ == "__main__":
    main()
