"""PSNR by task of any network that knows tasks, or none, fast: what the analysis measures layers with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ipt.biases.sensitivity import ByTask
from pipelines.data.pairs import load_pairs


def psnr_meter(shards: Path, tasks: tuple[str, ...], tiles: int, device: torch.device, bf16: bool) -> Callable:
    """A function from a network, which computes in bf16 or float32, to its mean PSNR (dB) on `tiles` whole training
    tiles of each task.

    Not the held-out ones, which are for judging the model that is made of this choice.
    """
    pairs = [load_pairs(shards / task / "train", tiles) for task in tasks]
    images = torch.tensor(np.stack([np.stack(pair) for of_task in pairs for pair in of_task]), device=device)
    degraded, clean = images.permute(1, 0, 4, 2, 3).contiguous()
    index = torch.arange(len(tasks), device=device).repeat_interleave(
        torch.tensor([len(p) for p in pairs], device=device)
    )

    @torch.inference_mode()
    def measure(network: nn.Module) -> list[float]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            restored = ByTask(network)(degraded, index).float().clamp(0, 1)
        psnr = -10 * (restored - clean).square().mean((1, 2, 3)).clamp_min(1e-10).log10()
        return [float(psnr[index == task].mean()) for task in range(len(tasks))]

    return measure
