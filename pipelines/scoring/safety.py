"""What a model does where it should do little: to clean pictures, and to damage that is another task's; and whether it
sees by itself which is which."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ipt.metrics import psnr
from ipt.model import InstructIPT
from ipt.network.config import CLEAN
from ipt.restoring.restore import restore_image
from ipt.understanding.estimator import estimate
from pipelines.data.pairs import Pairs

FEW = 16  # images a task: every one goes through every task


def score_harm(model: InstructIPT, pairs: Pairs) -> dict[str, dict[str, float]]:
    """By task that restores: `clean`, the mean change of clean images in grey levels, and for the damage of each task
    (by the task's name) the gain in PSNR (dB); the row `blind` is for the model left to itself."""
    rows = {}
    for task in (*model.config.tasks, None):
        clean = [image for of_task in pairs.values() for _, image in of_task[: FEW // 4]]
        row = {
            "clean": np.mean([np.abs(restore_image(model, image, task=task) - image).mean() for image in clean]) * 255
        }
        for damaged, of_task in pairs.items():
            row[damaged] = np.mean([psnr(restore_image(model, d, task=task), c) - psnr(d, c) for d, c in of_task[:FEW]])
        rows[task or "blind"] = {name: round(float(value), 2) for name, value in row.items()}
    return rows


def score_sight(model: InstructIPT, task: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Share of the pairs whose degraded image is taken for the task's, and whose clean image is taken for clean."""
    names = (*model.config.tasks, CLEAN)
    seen = [[names[int(estimate(model.estimator, image).argmax())] for image in pair] for pair in pairs]
    return {
        "degraded": round(float(np.mean([degraded == task for degraded, _ in seen])), 4),
        "clean": round(float(np.mean([clean == CLEAN for _, clean in seen])), 4),
    }
