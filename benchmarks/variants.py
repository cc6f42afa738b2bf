"""What the ablation compares task biases with: other ways to tell a network its task.

Every variant is called with the images and the task of each, and starts as the plain backbone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipt.network.backbone import Backbone
from ipt.network.modulation import TaskSelection

EMBEDDING = 32  # numbers that stand for a task
PROMPT = 8  # positions a side of a prompt


class Conditioned(nn.Module):
    """A backbone whose blocks in some stages are followed by something that knows the task of each sample."""

    def __init__(self, backbone: Backbone, stages: Iterable[nn.Sequential], after: type[nn.Module], tasks: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.selection = TaskSelection()
        for stage in stages:
            for place, block in enumerate(stage):
                width = block.mixer_norm.normalized_shape[0]
                stage[place] = _Followed(block, after(tasks, width), self.selection)

    def forward(self, degraded: Tensor, index: Tensor) -> Tensor:
        """(B, 3, H, W) and (B,) to the restored images."""
        self.selection.index = index
        return self.backbone(degraded)


class _Followed(nn.Module):
    def __init__(self, block: nn.Module, after: nn.Module, selection: TaskSelection) -> None:
        super().__init__()
        self.block, self.after, self.selection = block, after, selection

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.block(x), self.selection.index)


class Film(nn.Module):
    """Feature modulation: x (1 + a) + b, a and b from an embedding of the task (Perez et al. 2018)."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tasks, EMBEDDING)
        self.scale_and_shift = nn.Linear(EMBEDDING, 2 * width)
        nn.init.zeros_(self.scale_and_shift.weight)
        nn.init.zeros_(self.scale_and_shift.bias)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        scale, shift = self.scale_and_shift(self.embedding(index))[:, None, None].chunk(2, -1)
        return x * (1 + scale) + shift


class Prompt(nn.Module):
    """Added features: a learnt picture of each task, mixed in (as in PromptIR, Potlapalli et al. 2023)."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(tasks, width, PROMPT, PROMPT) * 0.1)
        self.project = nn.Linear(2 * width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        prompt = F.interpolate(self.prompt, x.shape[1:3], mode="bilinear").permute(0, 2, 3, 1)[index]
        return x + self.project(torch.cat([x, prompt], -1))


class OneEach(nn.Module):
    """A network of its own for every task: as many parameters as tasks, the upper reference."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, degraded: Tensor, index: Tensor) -> Tensor:
        """(B, 3, H, W) and (B,) to the restored images."""
        return torch.stack(
            [self.networks[int(task)](image[None])[0] for image, task in zip(degraded, index, strict=True)]
        )
