"""Any image, any size: cut into overlapping tiles where it is large, restored, blended, put together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ipt.model import InstructIPT
from ipt.modulation import merge

SURE = 0.5  # probability above which an instruction is taken as understood
TILE = 768  # pixels; larger images are cut, so that memory does not grow with the picture
OVERLAP = 64  # pixels shared by neighbouring tiles


def restore_image(
    model: InstructIPT,
    image: np.ndarray,
    *,
    task: str | None = None,
    instruction: str | None = None,
    strength: float = 1.0,
) -> np.ndarray:
    """Restore `image`, float32 (H, W, 3) RGB in [0, 1], for a task or as a sentence asks; same shape and range.

    Raises ValueError for another kind of image, an unknown task, neither or both of task and instruction, or an
    instruction that is not understood.
    """
    check_image(image)
    index = model.task_index(choose_task(model, task, instruction))
    backbone = merge(model.backbone, index, strength)

    @torch.inference_mode()
    def restore_tile(tile: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(tile).permute(2, 0, 1)[None].contiguous()
        restored = backbone(batch.to(next(backbone.parameters()).device))[0].permute(1, 2, 0)
        return restored.clamp(0, 1).cpu().numpy()

    return restore_tiles(image, restore_tile, TILE, OVERLAP)


def choose_task(model: InstructIPT, task: str | None, instruction: str | None) -> str:
    """The task that is named or that the sentence asks for; a ValueError where that is not clear."""
    if (task is None) == (instruction is None):
        raise ValueError(
            f"restore: expected either a task or an instruction; got task {task!r}, instruction {instruction!r}"
        )
    if task is not None:
        model.task_index(task)
        return task
    probabilities = model.understand(instruction)
    likely = max(probabilities, key=probabilities.get)
    if probabilities[likely] <= SURE:
        raise ValueError(
            f"instruction: not sure what {instruction!r} asks for (most likely {likely}, "
            f"{probabilities[likely]:.0%}); say it otherwise or name one of {', '.join(probabilities)}"
        )
    return likely


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless `image` is float32 (H, W, 3) with finite values in [0, 1]."""
    if image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image: expected float32 (H, W, 3), got {image.dtype} {image.shape}")
    if not (image.min() >= 0 and image.max() <= 1):  # false for NaN too
        raise ValueError(f"image: expected values in [0, 1], got {image.min()} to {image.max()}")


def restore_tiles(
    image: np.ndarray, restore: Callable[[np.ndarray], np.ndarray], tile: int, overlap: int
) -> np.ndarray:
    """Apply `restore` to overlapping tiles of (H, W, 3) and blend them with ramps; one call where the image fits."""
    height, width = image.shape[:2]
    if height <= tile and width <= tile:
        return restore(image)
    total = np.zeros_like(image)
    weight = np.zeros((height, width, 1), np.float32)
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            part = np.s_[top : top + tile, left : left + tile]
            ramp = _ramp(image[part].shape[0], overlap)[:, None, None] * _ramp(image[part].shape[1], overlap)[:, None]
            total[part] += restore(image[part]) * ramp
            weight[part] += ramp
    return total / weight


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover `length`, the last one moved back to end at the border."""
    step = tile - overlap
    return [min(start, max(length - tile, 0)) for start in range(0, max(length - overlap, 1), step)]


def _ramp(length: int, overlap: int) -> np.ndarray:
    """Weights that rise over the overlap at both ends, never zero."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.minimum(distance / overlap, 1).astype(np.float32)
