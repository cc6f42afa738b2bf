"""PSNR by task of any network that knows tasks, or none, fast: what the analysis measures layers with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from ipt.biases.sensitivity import ByTask
from pipelines.data.pairs import read_images
from pipelines.data.row_groups import RowGroup


def psnr_meter(rows: Sequence[list[tuple[RowGroup, int]]], device: torch.device, bf16: bool) -> Callable:
    """A function from a network, which computes in bf16 or float32, to its mean PSNR (dB) on these whole tiles of
    each task.
    """
    pairs = [read_images(of_task) for of_task in rows]
    images = torch.tensor(np.stack([np.stack(pair) for of_task in pairs for pair in of_task]), device=device)
    degraded, clean = images.permute(1, 0, 4, 2, 3).contiguous()
    index = torch.arange(len(pairs), device=device).repeat_interleave(
        torch.tensor([len(p) for p in pairs], device=device)
    )

    @torch.inference_mode()
    def measure(network: nn.Module) -> list[float]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            restored = ByTask(network)(degraded, index).float().clamp(0, 1)
        psnr = -10 * (restored - clean).square().mean((1, 2, 3)).clamp_min(1e-10).log10()
        return [float(psnr[index == task].mean()) for task in range(len(pairs))]

    return measure
