"""Any image, any size: find out what to do with it, and do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ipt.model import InstructIPT
from ipt.network.config import CLEAN
from ipt.network.modulation import merge
from ipt.network.precision import Precision, uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.pixels import LEVELS
from ipt.restoring.memory import affordable_tile, kept_memory
from ipt.restoring.tiles import restore_in_tiles
from ipt.understanding.estimator import estimate

SURE = 0.5  # probability above which a picture is taken to have a damage
STRENGTHS = (0.0, 1.5)
Quality = Literal["normal", "best"]
FLIPS = ((2,), (3,), (2, 3))  # of (B, 3, H, W)
FLAT = 2 / 255  # a picture whose values all lie this close together shows nothing that could be restored


@dataclass(frozen=True)
class Plan:
    """What will be done with an image, and why."""

    tasks: tuple[str, ...]  # in the order they are done; empty: the image stays as it is
    by: Literal["task", "instruction", "blind"]  # who decided
    probabilities: dict[str, float]  # of each task as the decider saw them, "clean" among them where it was the image
    understood: tuple[str, ...] | None = None  # of the instruction, where there was one; empty: nothing for sure


def restore_image(
    model: InstructIPT,
    image: np.ndarray,
    *,
    task: str | None = None,
    instruction: str | None = None,
    strength: float = 1.0,
    tile: int | None = None,
    precision: Precision = "auto",
    quality: Quality = "normal",
) -> np.ndarray:
    """Restore an RGB image (H, W, 3), uint8, uint16 or float32 in [0, 1], of any size; same shape and dtype.

    For a named task, as an instruction asks, or, without either or where the instruction is unclear, for the damage
    that the image shows; an image that looks clean comes back as it is. `strength` scales the task's bias, `tile` is
    the side in pixels of the pieces it is cut into (None: what free memory allows), `precision` what the network
    computes in (auto: bfloat16 where the device has it), `quality` "best" is the mean over the picture and its three
    flips, in four times the time. Raises ValueError for another kind of image, an unknown task, both a task and an
    instruction, an instruction of more than 2,000 characters, a strength outside 0 to 1.5, or a tile too small for
    what the network sees around a pixel.
    """
    plan = plan_restoration(model, image, task=task, instruction=instruction)
    return restore_tasks(model, image, plan.tasks, strength=strength, tile=tile, precision=precision, quality=quality)


def plan_restoration(
    model: InstructIPT, image: np.ndarray, *, task: str | None = None, instruction: str | None = None
) -> Plan:
    """Decide what to do with an image, as `restore_image` does; raises its ValueErrors."""
    check_image(image)
    if task is not None and instruction is not None:
        raise ValueError(f"restore: expected a task or an instruction, got both: {task!r} and {instruction!r}")
    if task is not None:
        model.task_index(task)
        return Plan((task,), "task", {})
    understood = None
    if instruction is not None:
        understood, probabilities = model.read(instruction)
        if understood:
            return Plan(understood, "instruction", probabilities, understood)
    seen = dict(zip((*model.config.tasks, CLEAN), estimate(model.estimator, image).tolist(), strict=True))
    likely = max(seen, key=seen.__getitem__)
    tasks = () if likely == CLEAN or seen[likely] <= SURE else (likely,)
    return Plan(tasks, "blind", seen, understood)


def restore_tasks(
    model: TaskNetwork,
    image: np.ndarray,
    tasks: Sequence[str],
    *,
    strength: float = 1.0,
    tile: int | None = None,
    memory: int | None = None,
    precision: Precision = "auto",
    quality: Quality = "normal",
    before_tile: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Restore an image for each of `tasks`, one after the other; arguments and errors as of `restore_image`.

    `memory` is what tiles may take on the CPU, in bytes (None: a share of what is free). `before_tile` is called before
    each tile; what it raises ends the work.
    """
    restore = restorer(
        model,
        tasks,
        strength=strength,
        tile=tile,
        memory=memory,
        precision=precision,
        quality=quality,
        before_tile=before_tile,
    )
    return restore(image)


def restorer(
    model: TaskNetwork,
    tasks: Sequence[str],
    *,
    strength: float = 1.0,
    tile: int | None = None,
    memory: int | None = None,
    precision: Precision = "auto",
    quality: Quality = "normal",
    before_tile: Callable[[], None] = lambda: None,
) -> Callable[[np.ndarray], np.ndarray]:
    """`restore_tasks` for many images: a function of an image, for which the biases are merged once.

    Merging takes as long as restoring 128 x 128 pixels. Raises the ValueErrors of `restore_image`, those about the
    image when the function is called.
    """
    check_strength(strength)
    networks = [merge(model.backbone, model.task_index(task), strength) for task in tasks]
    device = next(model.parameters()).device
    bf16 = uses_bf16(precision, device)
    reach = model.backbone.reach * len(networks)
    flips = FLIPS if quality == "best" else ()

    def restore_part(part: np.ndarray) -> np.ndarray:
        before_tile()
        batch = torch.from_numpy(part).permute(2, 0, 1)[None].contiguous().to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for network in networks:
                restored = network(batch)  # float32: only what is added to the batch is computed in less
                for flip in flips:
                    restored = restored + network(batch.flip(flip)).flip(flip)
                batch = (restored / (1 + len(flips))).clamp(0, 1)
        if error := no_numbers(batch):
            raise error
        return batch[0].permute(1, 2, 0).cpu().numpy()

    @torch.inference_mode()
    def restore(image: np.ndarray) -> np.ndarray:
        check_image(image)
        if not networks or is_flat(image):
            return image.copy()
        side = affordable_tile(model.config, reach, device, memory) if tile is None else tile
        with kept_memory():
            return restore_in_tiles(image, restore_part, tile=side, reach=reach, multiple=model.config.size_multiple)

    return restore


def no_numbers(restored: torch.Tensor) -> RuntimeError | None:
    """The error for restored values of which some are no numbers, and would be black as pixels; None where all are."""
    if restored.isfinite().all():
        return None
    return RuntimeError("restoring gave values that are no numbers; try --precision fp32, or another model")


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is (H, W, 3), uint8, uint16 or float32 with finite values in [0, 1]."""
    if (image.dtype not in LEVELS and image.dtype != np.float32) or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8, uint16 or float32 (H, W, 3), got {image.dtype} {image.shape}")
    if not image.size:
        raise ValueError(f"image: expected at least one pixel, got {image.shape}")
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):  # false for NaN too
        raise ValueError(f"image: expected values in [0, 1], got {image.min()} to {image.max()}")


def check_strength(strength: float) -> None:
    """Raise ValueError unless `strength` lies within STRENGTHS."""
    if not STRENGTHS[0] <= strength <= STRENGTHS[1]:  # false for NaN too
        raise ValueError(f"strength: expected {STRENGTHS[0]} to {STRENGTHS[1]}, got {strength}")


def is_flat(image: np.ndarray) -> bool:
    """Whether an image shows nothing that could be restored, so that it comes back as it is."""
    limit = FLAT * LEVELS.get(image.dtype, 1)
    return all(float(image[..., c].max()) - float(image[..., c].min()) <= limit for c in range(3))
