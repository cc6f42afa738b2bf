"""A small picture that every usable model restores: tried before a model is trusted with anybody's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.restoring.restore import is_flat, plan_restoration, restore_tasks

SIDE = 48  # pixels
FURTHEST = 0.45  # mean distance from the picture, of values in [0, 1]: dehazing goes 0.2, random weights 0.49
INSTRUCTION = "remove the noise"


class CanaryError(RuntimeError):
    """A model that spoils, or cannot restore, a picture that any of ours restores; the message says how."""


def canary_picture() -> np.ndarray:
    """The picture, uint8 (SIDE, SIDE, 3): ramps of colour, an edge and some grain, all between dark and bright."""
    ramp = np.linspace(60, 190, SIDE)
    picture = np.stack([np.tile(ramp, (SIDE, 1)), np.tile(ramp[:, None], SIDE), np.full((SIDE, SIDE), 125.0)], axis=2)
    picture[SIDE // 3 : 2 * SIDE // 3, SIDE // 3 : 2 * SIDE // 3] = (180, 90, 70)
    return np.rint(picture + np.random.default_rng(0).normal(0, 8, picture.shape)).astype(np.uint8)


def check_canary(model: InstructIPT, tasks: Sequence[str] | None = None, *, precision: Precision = "auto") -> None:
    """Let a model restore the canary picture for each of `tasks` (None: all of its), read a sentence and look.

    `precision` as in `restore_image`. Raises CanaryError where a result is of another shape or dtype, flat, or further
    than FURTHEST from the picture, or a probability is none; and what restoring raises (RuntimeError for values that
    are no numbers, and of a device that has no memory left).
    """
    picture = canary_picture()
    seen = {"looking at it": plan_restoration(model, picture).probabilities}
    for what, told in (seen | {f"reading {INSTRUCTION!r}": model.understand(INSTRUCTION)}).items():
        if wrong := {name: value for name, value in told.items() if not 0 <= value <= 1}:  # true for NaN too
            raise CanaryError(f"canary: {what}: expected probabilities, got {wrong}")
    for task in model.config.tasks if tasks is None else tasks:
        _check_restored(task, picture, restore_tasks(model, picture, [task], precision=precision))


def _check_restored(task: str, picture: np.ndarray, restored: np.ndarray) -> None:
    if (restored.shape, restored.dtype) != (picture.shape, picture.dtype):
        raise CanaryError(
            f"canary: {task}: expected {picture.dtype} {picture.shape}, got {restored.dtype} {restored.shape}"
        )
    if is_flat(restored):
        raise CanaryError(f"canary: {task}: the restored picture shows nothing: everywhere {restored[0, 0].tolist()}")
    distance = float(np.abs(restored.astype(float) - picture).mean()) / 255
    if distance > FURTHEST:
        raise CanaryError(
            f"canary: {task}: the restored picture is {distance:.2f} from the given one, expected at most {FURTHEST}"
        )
