"""Train on one device with damage made anew for every pair: no shards, no Ray, no DVC.

How the weights of a release come from a lent GPU (docs/release.md): all cores but one damage squares of the
photographs, the device keeps a pool of them and cuts its crops from it. The learning rates follow the clock, so
that the model is finished when `--seconds` are over; which squares come in which order depends on the seed alone.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from degradations.recipe import degrade
from ipt.network.checkpoint import load_checkpoint, save_model
from ipt.network.modulation import select
from ipt.network.precision import uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.photos.images import read_image
from ipt.pixels import to_levels, to_unit
from ipt.training.fit import TrainingState
from ipt.training.losses import balanced_loss, restoration_loss, running_scale, sample_errors
from pipelines.common.params import Params, load_params
from pipelines.training.choice import model_config, read_choice, training_settings
from pipelines.training.groups import leave_alone

FLAT = 3.0  # grey levels: a square whose standard deviation is below shows nothing
REUSE = 2  # times a square is used, in different crops
POOL = 40  # blocks of squares that the device keeps
HELD_OUT_SEED = 10**9
WARMUP = 300  # steps


def read_photographs(folder: Path, scales: tuple[float, ...], smallest: int) -> list[np.ndarray]:
    """The photographs of a folder at each scale, uint8 (H, W, 3), those smaller than `smallest` left out."""
    pictures = []
    for path in sorted(folder.iterdir()):
        image = read_image(path)
        for scale in scales:
            side = [round(length * scale) for length in image.shape[:2]]
            if min(side) >= smallest:
                kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                pictures.append(to_levels(cv2.resize(image, side[::-1], interpolation=kind)))
    return pictures


def draw_square(pictures: list[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """A square, float32 in [0, 1], out of any of the pictures; not a flat one, if there is another to be found."""
    for _ in range(10):
        picture = pictures[rng.integers(len(pictures))]
        top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        if square.std() > FLAT:
            break
    return to_unit(square)


class Blocks(IterableDataset):
    """Endless blocks of pairs, uint8 (tasks, each, 2, side, side, 3), degraded before clean; block b depends on b."""

    def __init__(self, pictures: list[np.ndarray], params: Params, each: int, side: int) -> None:
        self.pictures, self.params, self.each, self.side = pictures, params, each, side

    def block(self, number: int) -> np.ndarray:
        """Block `number`."""
        rng = np.random.default_rng([self.params.seed, number])
        pairs = np.empty((len(self.params.tasks), self.each, 2, self.side, self.side, 3), np.uint8)
        for of_task, task in zip(pairs, self.params.tasks.values(), strict=True):
            for pair in of_task:
                clean = draw_square(self.pictures, self.side, rng)
                pair[0], pair[1] = to_levels(degrade(clean, task.recipe, rng)[0]), to_levels(clean)
        for group in pairs.transpose(1, 2, 0, 5, 3, 4):  # (each, 2, tasks, 3, side, side): a view
            leave_alone(group[0], group[1], range(len(pairs)), self.params.ingest.left_alone, rng)
        return pairs

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for number in itertools.count(first, step):
            yield torch.from_numpy(self.block(number))


class Pool:
    """The latest blocks, on the device; crops are cut from it at random places and turned at random."""

    def __init__(self, blocks: Iterator[Tensor], device: torch.device, seed: int) -> None:
        self.blocks, self.device, self.next = blocks, device, 0
        self.generator = torch.Generator(device).manual_seed(seed)
        self.pairs = torch.stack([next(blocks) for _ in range(POOL)], 1).to(device)  # (T, P, each, 2, S, S, 3)

    def renew(self) -> None:
        """Put the next block in the place of the oldest."""
        self.pairs[:, self.next] = next(self.blocks).to(self.device, non_blocking=True)
        self.next = (self.next + 1) % POOL

    def draw(self, each: int, side: int) -> tuple[Tensor, Tensor]:
        """Degraded and clean, float32 (tasks * each, 3, side, side) in [0, 1], task by task."""
        tasks, blocks, in_block = self.pairs.shape[:3]
        pairs = self.pairs.flatten(1, 2)
        count = tasks * each

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=self.generator, device=self.device)

        task = torch.arange(tasks, device=self.device).repeat_interleave(each)
        offsets = torch.arange(side, device=self.device)
        rows = below(pairs.shape[3] - side + 1)[:, None] + offsets
        columns = below(pairs.shape[4] - side + 1)[:, None] + offsets
        chosen = below(blocks * in_block)
        crops = pairs[task[:, None, None], chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        images = crops.permute(3, 0, 4, 1, 2).float().div_(255)  # (2, B, 3, side, side)
        for turn in range(8):  # every eighth sample alike: their order is random already
            part = images[:, turn::8]
            images[:, turn::8] = torch.rot90(part.flip(-1) if turn > 3 else part, turn % 4, (-2, -1)).contiguous()
        return images[0], images[1]


@dataclass
class Trainer:
    """A network with all that its steps need; no step waits for the device."""

    network: TaskNetwork
    params: Params
    compiled: bool

    def __post_init__(self) -> None:
        self.device = next(self.network.parameters()).device
        settings = training_settings(self.params, 1, uses_bf16(self.params.train.precision, self.device))
        self.state = TrainingState(self.network, settings)
        self.parameters = list(self.network.parameters())
        self.weights = torch.tensor(settings.task_weights, device=self.device)
        self.tasks = torch.arange(len(self.params.tasks), device=self.device)
        self.forward = torch.compile(self.network.backbone) if self.compiled else self.network.backbone

    def update(self, degraded: Tensor, clean: Tensor, done: float) -> tuple[Tensor, Tensor]:
        """One step at `done` of the whole time; the mean loss of each task and the norm of the gradient."""
        state = self.state
        factor = min((state.step + 1) / WARMUP, 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        index = self.tasks.repeat_interleave(len(degraded) // len(self.tasks))
        if self.network._selection.equal_runs != len(degraded) // len(self.tasks):  # to look at it waits for the device
            select(self.network._selection, index, len(self.tasks))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=state.settings.bf16):
            restored = self.forward(degraded)
        frequency_weight = state.settings.frequency_weight
        distances = restoration_loss(restored.float(), clean, frequency_weight).view(len(self.tasks), -1)
        errors = sample_errors(distances, frequency_weight).mean(1)  # `task_errors`, without a wait
        if state.task_scale is None:
            state.task_scale = errors.detach()
        loss = balanced_loss(errors, state.task_scale, self.weights)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, state.settings.clip_norm)
        state.task_scale = running_scale(errors, state.task_scale)
        state.optimizer.step()
        state.ema.update_parameters(self.network)
        state.step += 1
        return distances.detach().mean(1), norm

    def averaged(self) -> TaskNetwork:
        """The network with the averaged weights."""
        return cast("TaskNetwork", self.state.ema.module.eval())


@torch.inference_mode()
def held_out_psnr(network: TaskNetwork, pairs: Tensor) -> list[float]:
    """Mean PSNR (dB) of each task on uint8 pairs (tasks, count, 2, side, side, 3)."""
    told = []
    for task, of_task in enumerate(pairs):
        degraded, clean = of_task.permute(1, 0, 4, 2, 3).float().div(255)
        restored = network(degraded, torch.full((len(degraded),), task, device=pairs.device))
        levels = restored.clamp(0, 1).mul(255).round().div(255)
        told.append(float((-10 * (levels - clean).square().mean((1, 2, 3)).clamp_min(1e-10).log10()).mean()))
    return told


def train(trainer: Trainer, pool: Pool, seconds: float, each: int, side: int, held_out: Tensor, out: Path) -> None:
    """Train until the seconds are over; the log and the averaged weights are written twenty times."""
    tasks = list(trainer.params.tasks)
    rows: list[dict[str, float]] = []
    started, looked, waited = time.perf_counter(), 0, 0.0
    while (elapsed := time.perf_counter() - started) < seconds:
        losses, norm = trainer.update(*pool.draw(each, side), elapsed / seconds)
        before = time.perf_counter()
        pool.renew()
        waited += time.perf_counter() - before
        if int(elapsed / seconds * 20) > looked:
            looked += 1
            if not norm.isfinite():
                raise RuntimeError(f"step {trainer.state.step}: the gradient is no number; lower train.learning_rate")
            network = trainer.averaged()
            told = held_out_psnr(network, held_out)
            psnr = dict(zip(tasks, (round(value, 2) for value in told), strict=True))
            samples = trainer.state.step * each * len(tasks)
            row = {
                "seconds": round(elapsed),
                "step": trainer.state.step,
                "samples": samples,
                "waited": round(waited, 1),
            }
            rows.append(row | {"waited": round(waited, 1), "loss": round(float(losses.mean()), 5)} | psnr)
            print("fresh damage: " + ", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
            pd.DataFrame(rows).to_csv(out / "log.csv", index=False)
            save_model(network, out)
    save_model(trainer.averaged(), out)


def main() -> None:
    """Read the arguments, train, and write the checkpoint into `--out`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh_damage", description=__doc__, formatter_class=raw)
    parser.add_argument("--photographs", type=Path, required=True, help="clean ones to learn from")
    parser.add_argument("--held-out", type=Path, required=True, help="clean ones to measure on")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--choice", type=Path, default=Path("metrics/modulation.json"), help="layers and rank")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--each", type=int, default=32, help="samples of every task in a step")
    parser.add_argument("--square", type=int, default=160, help="pixels that are damaged")
    parser.add_argument("--crop", type=int, default=128, help="pixels that are learnt from")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.0, 0.6, 1.6], help="of the photographs")
    parser.add_argument("--workers", type=int, default=max((torch.get_num_threads() or 2) - 1, 1))
    parser.add_argument("--begin-with", type=Path, help="a checkpoint whose weights are gone on from")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    cv2.setNumThreads(0)  # the processes that damage are forked: threads of the parent's would be missed there
    params = load_params(given.params)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(params.seed)
    pictures, others = (
        read_photographs(folder, given.scales, given.square) for folder in (given.photographs, given.held_out)
    )
    blocks = Blocks(pictures, params, max(given.each // REUSE, 1), given.square)
    held_out = Blocks(others, params, 16, given.square)
    pairs = torch.from_numpy(held_out.block(HELD_OUT_SEED)).to(device)
    loader = DataLoader(
        blocks, batch_size=None, num_workers=given.workers, prefetch_factor=4, pin_memory=device.type == "cuda"
    )
    network = TaskNetwork(model_config(params, read_choice(given.choice))).to(device)
    if given.begin_with:
        network = load_checkpoint(TaskNetwork, given.begin_with, device).train()
    given.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(network, params, given.compile)
    train(trainer, Pool(iter(loader), device, params.seed), given.seconds, given.each, given.crop, pairs, given.out)


if __name__ == "__main__":
    main()
