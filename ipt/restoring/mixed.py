"""Many small images at once: a batch in which each image has its own task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ipt.network.modulation import selected
from ipt.network.precision import Precision, uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.pixels import from_unit, to_unit
from ipt.restoring.memory import kept_memory
from ipt.restoring.restore import check_image, check_strength, is_flat, no_numbers


@torch.inference_mode()
def restore_mixed(
    model: TaskNetwork,
    images: Sequence[np.ndarray],
    tasks: Sequence[str],
    *,
    strength: float = 1.0,
    precision: Precision = "auto",
) -> list[np.ndarray | RuntimeError]:
    """Restore images of one height and width, each for its own task, in one pass of the network.

    Image by image what `restore_tasks` returns for it and (task,), but for rounding (in float32 at most one level of 8
    bits); nothing is cut into tiles. The images may differ in dtype. One call at a time on a model, which holds the
    tasks of the batch. An image of which the network made values that are no numbers has the RuntimeError that
    `restore_tasks` raises in its place. Raises the ValueErrors of `restore_tasks`, and one for images of several sizes.
    """
    for image in images:
        check_image(image)
    check_strength(strength)
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"images: expected one size, got {sorted({image.shape[:2] for image in images})}")
    index = [model.task_index(task) for task in tasks]
    results: list[np.ndarray | RuntimeError] = [image.copy() for image in images]
    shown = [place for place, image in enumerate(images) if not is_flat(image)]
    if not shown:
        return results
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.stack([to_unit(images[place]) for place in shown])).permute(0, 3, 1, 2)
    chosen = torch.tensor([index[place] for place in shown], device=device)
    half = torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))
    with selected(model.backbone, chosen, strength), half, kept_memory():
        restored = model.backbone(batch.contiguous().to(device)).clamp(0, 1)
    for place, levels in zip(shown, restored.permute(0, 2, 3, 1).cpu(), strict=True):
        results[place] = no_numbers(levels) or from_unit(levels.numpy(), images[place].dtype)
    return results
