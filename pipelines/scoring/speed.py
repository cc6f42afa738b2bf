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
SECONDS = 3.0  # that all of a model's turns take at least: the shortest of few short ones is that of a busy moment


def seconds_per_megapixel(models: Mapping[str, TaskNetwork]) -> dict[str, float]:
    """The shortest restoration of a SIDE x SIDE picture by each model, in turn, in seconds per megapixel.

    Each has TURNS turns, and more until they took SECONDS.
    """
    picture = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    turns: dict[str, list[float]] = {name: [] for name in models}
    while any(len(seconds) < TURNS or sum(seconds) < SECONDS for seconds in turns.values()):
        for name, model in models.items():
            started = time.perf_counter()
            restore_tasks(model, picture, model.config.tasks[:1])
            turns[name].append(time.perf_counter() - started)
    return {name: min(seconds) / (SIDE**2 / 1e6) for name, seconds in turns.items()}


def machine() -> str:
    """What the models run on here, in words."""
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
