"""`make sixth-task`: teach the trained model one more task by training that task's bias alone.

Clean tiles are those of the shards; the damage is drawn anew at every step. Prints the PSNR on held-out tiles, the
bytes added, and whether the other tasks' outputs are the same to the bit.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import numpy as np
import torch

from degradations.recipe import check_recipe, degrade, rng_for
from ipt.biases.adapters import adapter_state, add_task
from ipt.biases.sensitivity import ByTask, fit_biases
from ipt.model import InstructIPT
from ipt.pixels import to_levels
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings
from pipelines.common.params import load_params
from pipelines.common.paths import SHARDS, TRAINED
from pipelines.common.processes import usable_cores
from pipelines.data import metrics
from pipelines.data.pairs import load_pairs
from pipelines.training.batches import Groups, training_batches
from pipelines.training.crops import cut_squares, draw_cuts

RECIPES = {
    "brighten": [
        {"LowLight": {"stops": [1, 3.5], "gamma": [1, 1.2], "cast": [0, 0.1], "shot": [1, 8], "read": [0, 2]}}
    ],
    "dejpeg": [{"ImageCompression": {"quality_range": [10, 50]}}],
    "enlarge": [{"LowResolution": {"factor": [1.5, 4], "blur": [0.2, 0.8]}}],
}
BATCH, CROP, TILES = 8, 64, 1000


def batches(cleans: list[np.ndarray], task: str, number: int, seed: int) -> Iterator[Batch]:
    """Endless batches of the new task."""

    def steps() -> Iterator[Groups]:
        for step in itertools.count():
            rng = np.random.default_rng([seed, step])
            clean = [cleans[place] for place in rng.integers(len(cleans), size=BATCH)]
            rngs = [rng_for(seed, task, str(step), place) for place in range(BATCH)]
            degraded = [degrade(tile, RECIPES[task], own)[0] for tile, own in zip(clean, rngs, strict=True)]
            cuts = draw_cuts([rng], BATCH, clean[0].shape, CROP)
            yield {
                name: cut_squares(to_levels(np.stack(tiles)), np.arange(BATCH), cuts, CROP)[None]
                for name, tiles in (("degraded", degraded), ("clean", clean))
            }

    return training_batches(steps(), [number] * BATCH)


def outputs(network: torch.nn.Module, images: torch.Tensor, task: int) -> torch.Tensor:
    """Restored images, one at a time."""
    with torch.inference_mode():
        return torch.cat([ByTask(network)(image[None], torch.tensor([task])) for image in images])


def psnr(restored: torch.Tensor, clean: torch.Tensor) -> float:
    """Mean over images, dB, 8-bit rounded."""
    return float(np.mean([metrics.psnr(*pair) for pair in zip(restored.numpy(), clean.numpy(), strict=True)]))


def main() -> None:
    """Train the bias and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(RECIPES), default="brighten")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=usable_cores())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    params, train = load_params(), load_params().train
    torch.manual_seed(params.seed)
    check_recipe(RECIPES[given.task], given.task)
    first = next(iter(params.tasks))
    network = InstructIPT.from_pretrained(TRAINED).backbone
    cleans = [clean for _, clean in load_pairs(SHARDS / first / "train", TILES)]
    held_out = [clean for _, clean in load_pairs(SHARDS / first / "val", params.evaluate.tiles)]
    damaged = [
        degrade(c, RECIPES[given.task], rng_for(0, given.task, "held out", n))[0] for n, c in enumerate(held_out)
    ]
    clean, degraded = (torch.tensor(np.stack(images)).permute(0, 3, 1, 2) for images in (held_out, damaged))

    before = [outputs(network, degraded, task) for task in range(len(params.tasks))]
    number = add_task(network)
    settings = TrainingSettings(
        steps=given.steps, learning_rate=train.learning_rate, bias_learning_rate=train.bias_learning_rate,
        warmup_steps=min(train.warmup_steps, given.steps // 10), weight_decay=0.0, clip_norm=train.clip_norm,
        ema_decay=train.ema_decay, task_weights=(1.0,) * (number + 1), bf16=False,
        frequency_weight=train.frequency_weight,
    )  # fmt: skip
    common = psnr(outputs(network, degraded, number), clean)
    network = fit_biases(network, batches(cleans, given.task, number, params.seed), settings)
    same = all(torch.equal(kept, outputs(network, degraded, task)) for task, kept in enumerate(before))
    added = sum(value.numel() * 2 for value in adapter_state(network, number).values())
    print(
        f"{given.task}: {given.steps} steps of {BATCH} crops; {len(held_out)} held-out tiles: degraded "
        f"{psnr(degraded, clean):.2f} dB, common backbone {common:.2f}, with its bias "
        f"{psnr(outputs(network, degraded, number), clean):.2f}; {added / 1e3:.1f} kB added in half precision; "
        f"the other tasks' outputs {'are the same to the bit' if same else 'HAVE CHANGED'}"
    )


if __name__ == "__main__":
    main()
