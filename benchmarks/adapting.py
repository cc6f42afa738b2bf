"""`python -m benchmarks.adapting --pairs FOLDER --task TASK`: a bias learns half of the real pairs of a set.

The backbone and all other biases stay as they are. The pairs are ordered by name: every second one, from the first, is
learnt from, the others are measured on, before and after. Prints a row for docs/results.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ipt import RELEASED
from ipt.biases.sensitivity import fit_biases
from ipt.network.precision import uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.pretrained import pretrained_network
from ipt.restoring.restore import restorer
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings
from pipelines.common.params import RealPairs
from pipelines.common.processes import usable_cores
from pipelines.data.metrics import psnr
from pipelines.scoring.real_pairs import read_real_pairs

Pair = tuple[np.ndarray, np.ndarray]


def crops(pairs: list[Pair], number: int, batch: int, side: int, seed: int) -> Iterator[Batch]:
    """Endless batches of squares of `side` pixels, flipped and turned, out of any of the pairs; task `number`."""
    rng = np.random.default_rng(seed)
    index = torch.full((batch,), number)
    while True:
        squares = []
        for _ in range(batch):
            pair = pairs[rng.integers(len(pairs))]
            top, left = (rng.integers(length - side + 1) for length in pair[0].shape[:2])
            turn, flip = rng.integers(4), rng.integers(2)
            both = np.stack([image[top : top + side, left : left + side] for image in pair])
            squares.append(np.rot90(both[:, :, ::-1] if flip else both, turn, (1, 2)))
        degraded, clean = torch.from_numpy(np.ascontiguousarray(np.stack(squares, 1))).permute(0, 1, 4, 2, 3)
        yield Batch(degraded.contiguous(), clean.contiguous(), index)


def gains(network: TaskNetwork, task: str, pairs: list[Pair]) -> np.ndarray:
    """What restoring gains in PSNR (dB) on each pair, 8-bit rounded."""
    restore = restorer(network, [task])
    return np.array([psnr(restore(degraded), clean) - psnr(degraded, clean) for degraded, clean in pairs])


def adapted(network: TaskNetwork, task: str, pairs: list[Pair], steps: int, rate: float, side: int) -> TaskNetwork:
    """A network whose bias of `task` has learnt the pairs."""
    device = torch.device("cpu")
    settings = TrainingSettings(
        steps=steps, learning_rate=rate, bias_learning_rate=rate, warmup_steps=steps // 20, weight_decay=0.0,
        clip_norm=1.0, ema_decay=0.99, task_weights=(1.0,) * len(network.config.tasks),
        bf16=uses_bf16("auto", device),
    )  # fmt: skip
    found = TaskNetwork(network.config)
    batches = crops(pairs, network.task_index(task), 8, side, 0)
    found.backbone.load_state_dict(fit_biases(network.backbone, batches, settings).state_dict())
    return found.eval()


def main() -> None:
    """Read the pairs, adapt and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapting", description=__doc__, formatter_class=raw)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with degraded/ and clean/, same names")
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", default=RELEASED, help="what InstructIPT.from_pretrained reads")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--crop", type=int, default=128, help="pixels")
    given = parser.parse_args()
    torch.set_num_threads(usable_cores())
    torch.manual_seed(0)
    network = pretrained_network(given.model)
    pairs = list(read_real_pairs(RealPairs(given.pairs.name, str(given.pairs), given.task), 0))
    learnt, others = pairs[::2], pairs[1::2]
    before = gains(network, given.task, others)
    started = time.perf_counter()
    found = adapted(network, given.task, learnt, given.steps, given.rate, given.crop)
    minutes = (time.perf_counter() - started) / 60
    after = gains(found, given.task, others)
    told = [f"{each.mean():+.2f} ({each.min():+.2f})" for each in (before, after)]
    print(
        f"| {given.pairs.name} | {given.task} | {len(learnt)} | {len(others)} | {told[0]} | {told[1]} | {minutes:.1f} |"
    )


if __name__ == "__main__":
    main()
