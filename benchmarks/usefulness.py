"""What a task's recipe is worth: a network that learns this task alone, on a folder of photographs, measured on real
pairs that it never saw.

    python -m benchmarks.usefulness --task derain --clean FOLDER [--steps 4000]

The preset, recipe, learning rate and benchmarks are those of params.yaml; no DVC, Ray or MLflow. Damage and crops are
drawn anew while it trains, in a process beside it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import Module

from degradations.recipe import degrade, rng_for
from ipt.config import preset_config
from ipt.images import read_image
from ipt.metrics import to_levels
from ipt.model import InstructIPT
from ipt.training import Batch, StepReport, TrainingSettings, TrainingState, fit
from pipelines.crops import PairCrop
from pipelines.evaluate import benchmark_pairs, score_pairs
from pipelines.ingest import mixed_seed
from pipelines.params import Params, load_params

TILE = 128  # pixels that are degraded around each crop: streaks and depth need room
BATCH = 8


@functools.lru_cache(maxsize=1000)
def photograph(path: Path) -> np.ndarray:
    """A file's picture as (H, W, 3) RGB uint8, kept: decoding it again would cost as much as damaging it."""
    return to_levels(read_image(path))


def make_pair(path: Path, task: str, recipe: list, pair_crop: PairCrop, number: int) -> np.ndarray:
    """Pair `number` of the endless training set, (2, crop, crop, 3) uint8."""
    rng = np.random.default_rng([mixed_seed(number), 1])
    image = photograph(path).astype(np.float32) / 255
    if (short := min(image.shape[:2])) < TILE:
        image = cv2.resize(image, None, fx=TILE / short, fy=TILE / short, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    top, left = (int(rng.integers(side - TILE + 1)) for side in image.shape[:2])
    clean = np.ascontiguousarray(image[top : top + TILE, left : left + TILE])
    degraded, _ = degrade(clean, recipe, rng_for(0, task, path.name, number))
    return np.stack(pair_crop(to_levels(degraded), to_levels(clean), mixed_seed(number)))


def make_batch(files: list[Path], task: str, recipe: list, crop: int, number: int) -> np.ndarray:
    """Batch `number`, (BATCH, 2, crop, crop, 3) uint8: every photograph once in each pass, in an order of its own."""
    numbers = range(number * BATCH, (number + 1) * BATCH)
    places = [
        np.random.default_rng([1, pair // len(files)]).permutation(len(files))[pair % len(files)] for pair in numbers
    ]
    pair_crop = PairCrop(crop)
    return np.stack(
        [make_pair(files[place], task, recipe, pair_crop, pair) for place, pair in zip(places, numbers, strict=True)]
    )


def batches(pool: ProcessPoolExecutor, *what: object) -> Iterator[Batch]:
    """Endless batches, made ahead in another process."""
    pending = [pool.submit(make_batch, *what, number) for number in range(8)]
    for number in itertools.count(8):
        pairs = torch.from_numpy(pending.pop(0).result()).permute(1, 0, 4, 2, 3).float().div_(255).contiguous()
        pending.append(pool.submit(make_batch, *what, number))
        yield Batch(pairs[0], pairs[1], torch.zeros(BATCH, dtype=torch.long))


def train_alone(params: Params, task: str, files: list[Path], steps: int) -> Module:
    """The averaged model after `steps`."""
    torch.manual_seed(params.seed)
    model = InstructIPT(preset_config(params.model.preset, (task,), params.modulation.rank, params.modulation.layers))
    model.instruction.requires_grad_(False)
    train = params.train
    settings = TrainingSettings(
        steps, train.learning_rate, train.bias_learning_rate, train.warmup_steps, train.weight_decay,
        train.clip_norm, train.ema_decay, bf16=False,
    )  # fmt: skip
    state = TrainingState(model, settings)
    started = time.monotonic()

    def watch(report: StepReport) -> None:
        if report.step % 500 == 0:
            print(f"step {report.step}/{steps}, {time.monotonic() - started:.0f} s, loss {report.loss:.5f}", flush=True)

    with ProcessPoolExecutor(1) as pool:
        fit(state, batches(pool, files, task, params.tasks[task].recipe, params.ingest.crop), on_step=watch)
    return state.ema.module.eval()


def main() -> None:
    """Train, then print the PSNR and SSIM on each benchmark of the task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--clean", required=True, type=Path, help="folder of clean photographs")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    params = load_params()
    files = sorted(path for path in given.clean.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    started = time.monotonic()
    model = train_alone(params, given.task, files, given.steps)
    seconds = time.monotonic() - started
    print(f"{given.task}: {len(files)} photographs, {given.steps} steps of {BATCH} crops in {seconds:.0f} s")
    for benchmark in params.evaluate.benchmarks:
        if benchmark.task == given.task and (Path(benchmark.path) / "clean").is_dir():
            scores = score_pairs({"restored": model}, given.task, benchmark_pairs(benchmark, params.seed))
            print(f"{benchmark.name}: {scores}")


if __name__ == "__main__":
    main()
