"""PSNR of a network on the held-out tiles of each task: the validation curve."""

from __future__ import annotations

import numpy as np
import torch

from ipt.network.task_network import TaskNetwork
from pipelines.data.metrics import psnr
from pipelines.data.pairs import Pairs


def validate(network: TaskNetwork, pairs: Pairs) -> dict[str, float]:
    """Mean PSNR in dB of the restored images of each task, in the network's present weights."""
    return {
        task: float(
            np.mean(
                [
                    psnr(restored, clean)
                    for restored, (_, clean) in zip(restore_pairs(network, task, of_task), of_task, strict=True)
                ]
            )
        )
        for task, of_task in pairs.items()
    }


@torch.inference_mode()
def restore_pairs(network: TaskNetwork, task: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The restored image of each pair."""
    device = next(network.parameters()).device
    index = torch.tensor([network.task_index(task)], device=device)
    restored = []
    for degraded, _ in pairs:
        batch = torch.from_numpy(degraded).permute(2, 0, 1)[None].contiguous().to(device)
        restored.append(network(batch, index)[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy())
    return restored
