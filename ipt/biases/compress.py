"""Compression of task biases: the truncated singular value decomposition of U V, layer by layer and task by task."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ipt.biases.rank import orthogonal_core
from ipt.network.checkpoint import Network
from ipt.network.modulation import modulated_layers


@dataclass(frozen=True)
class LayerCompression:
    """What compression did to the biases of one layer; energy is the sum of squared singular values."""

    layer: str
    rank_before: int
    rank: int
    energy_kept: tuple[float, ...]  # share in [0, 1], by task
    bytes_before: int
    bytes: int


def compress_biases(model: Network, rank: int) -> tuple[Network, list[LayerCompression]]:
    """A copy of `model` whose task biases have at most `rank`, and a report by layer.

    The squared error of each weight is the discarded singular energy (Eckart & Young 1936). Raises ValueError for
    a rank below 1 or above the model's.
    """
    if not 1 <= rank <= model.config.rank:
        raise ValueError(f"compress: expected a rank from 1 to the model's {model.config.rank}, got {rank}")
    compressed = type(model)(dataclasses.replace(model.config, rank=rank)).to(next(model.parameters()).device)
    small = modulated_layers(compressed.backbone)
    weights = copy.deepcopy(model.state_dict())
    report = []
    for name, layer in modulated_layers(model.backbone).items():
        up, down, kept = truncate(layer.task_up.detach(), layer.task_down.detach(), small[name].task_up.shape[-1])
        weights[f"backbone.{name}.task_up"], weights[f"backbone.{name}.task_down"] = up, down
        report.append(
            LayerCompression(
                layer=name,
                rank_before=layer.task_up.shape[-1],
                rank=up.shape[-1],
                energy_kept=tuple(kept.tolist()),
                bytes_before=_bytes(layer.task_up, layer.task_down),
                bytes=_bytes(up, down),
            )
        )
    compressed.load_state_dict(weights)
    return compressed.train(model.training), report


def truncate(up: Tensor, down: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best rank-`rank` factors of each `up[t] @ down[t]`: (T, out, r), (T, r, in) to the same with `rank`.

    Also returns the share of singular energy kept, (T,); 1 where the product is zero. At their own rank the factors
    stay as they are, to the bit.
    """
    if rank == up.shape[-1]:
        return up, down, torch.ones(len(up), dtype=up.dtype, device=up.device)
    left, core, right = orthogonal_core(up, down)
    u, singular, v = torch.linalg.svd(core)
    energy = singular.square()
    total = energy.sum(1)
    kept = torch.where(total > 0, energy[:, :rank].sum(1) / total.clamp_min(1e-300), torch.ones_like(total))
    root = singular[:, :rank].sqrt()  # shared between both factors, so neither dwarfs the other
    small_up = (left @ u)[:, :, :rank] * root[:, None]
    small_down = root[:, :, None] * (v @ right.transpose(1, 2))[:, :rank]
    return small_up.to(up.dtype).contiguous(), small_down.to(down.dtype).contiguous(), kept


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
