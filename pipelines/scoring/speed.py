"""How long models take to restore, side by side on this machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping

import numpy as np
import torch

from ipt.network.task_network import TaskNetwork
from ipt.restoring.restore import restore_tasks

SIDE = 512  # pixels, of the picture that is restored
TURNS = 3


def seconds_per_megapixel(models: Mapping[str, TaskNetwork]) -> dict[str, float]:
    """The shortest of TURNS restorations of a SIDE x SIDE picture by each model, in turn, in seconds per megapixel."""
    picture = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    shortest = dict.fromkeys(models, float("inf"))
    for _ in range(TURNS):
        for name, model in models.items():
            started = time.perf_counter()
            restore_tasks(model, picture, model.config.tasks[:1])
            shortest[name] = min(shortest[name], time.perf_counter() - started)
    return {name: seconds / (SIDE**2 / 1e6) for name, seconds in shortest.items()}


def machine() -> str:
    """What the models run on here, in words."""
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
