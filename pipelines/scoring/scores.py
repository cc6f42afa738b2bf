"""How good a model is on pairs of images, and what it does where it should do little.

PSNR and SSIM on RGB in [0, 1], full image, no border crop, 8-bit rounded, mean over images. Harm is what happens to
clean pictures and to damage that is another task's; sight, whether the model sees by itself which is which.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import numpy as np

from ipt.model import InstructIPT
from ipt.network.task_network import TaskNetwork
from ipt.restoring.restore import plan_restoration, restore_image, restorer
from pipelines.common.processes import Each
from pipelines.data.metrics import psnr, ssim
from pipelines.data.pairs import Pairs

FEW = 16  # images a task: every one goes through every task
AT_ONCE = 16 * 128**2  # pixels


def score_pairs(
    models: dict[str, TaskNetwork], task: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]], each: Each = map
) -> dict:
    """Mean PSNR (dB) and SSIM of the degraded images and of each model's restored ones.

    `each` (a map) is where a few images at a time are restored.
    """
    parts = each(functools.partial(_values, models, task), few_at_a_time(pairs))
    rows = np.array([row for part in parts for row in part])
    return {
        "images": len(rows),
        **{
            output: {"psnr": round(float(mean[0]), 2), "ssim": round(float(mean[1]), 4)}
            for output, mean in zip(("degraded", *models), rows.mean(0), strict=True)
        },
    }


def few_at_a_time(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """The pairs in lists of at least AT_ONCE pixels: of small images some, so that merging biases does not count."""
    part, pixels = [], 0
    for degraded, clean in pairs:
        part.append((degraded, clean))
        pixels += degraded[..., 0].size
        if pixels >= AT_ONCE:
            yield part
            part, pixels = [], 0
    if part:
        yield part


def _values(
    models: dict[str, TaskNetwork], task: str, pairs: list[tuple[np.ndarray, np.ndarray]]
) -> list[list[tuple[float, float]]]:
    """PSNR and SSIM of the degraded image and of each restored one, by pair."""
    restorers = [restorer(model, [task]) for model in models.values()]
    return [
        [
            (psnr(image, clean), ssim(image, clean))
            for image in (degraded, *(restore(degraded) for restore in restorers))
        ]
        for degraded, clean in pairs
    ]


def score_harm(model: InstructIPT, pairs: Pairs, each: Each = map) -> dict[str, dict[str, float]]:
    """By task that restores: `clean`, the mean change of clean images in grey levels, and for the damage of each task
    (by the task's name) the gain in PSNR (dB); the row `blind` is for the model left to itself.

    `each` (a map) is where the rows are measured.
    """
    few = {task: of_task[:FEW] for task, of_task in pairs.items()}
    tasks = (*model.config.tasks, None)
    rows = each(functools.partial(_harm, model, few), tasks)
    return {task or "blind": row for task, row in zip(tasks, rows, strict=True)}


def _harm(model: InstructIPT, pairs: Pairs, task: str | None) -> dict[str, float]:
    restore = restorer(model, [task]) if task else functools.partial(restore_image, model)
    clean = [image for of_task in pairs.values() for _, image in of_task[: FEW // 4]]
    row = {"clean": np.mean([np.abs(restore(image) - image).mean() for image in clean]) * 255}
    for damaged, of_task in pairs.items():
        row[damaged] = np.mean([psnr(restore(d), c) - psnr(d, c) for d, c in of_task])
    return {name: round(float(value), 2) for name, value in row.items()}


def score_sight(model: InstructIPT, task: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Share of the pairs of which, left to itself, the model restores the degraded image for the task, and leaves the
    clean one alone.
    """
    chosen = [[plan_restoration(model, image).tasks for image in pair] for pair in pairs]
    return {
        "degraded": round(float(np.mean([of_degraded == (task,) for of_degraded, _ in chosen])), 4),
        "clean": round(float(np.mean([of_clean == () for _, of_clean in chosen])), 4),
    }
