"""The task-general backbone: a hierarchical transformer, local at its fine levels, attending at its coarse ones.

Inside, a feature map is (B, H, W, C): then a linear layer and a layer norm are single calls on contiguous
memory, and a depthwise convolution sees the same memory as channels-last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipt.network.config import ModelConfig

EPSILON = 1e-6  # keeps the norm of an all-zero channel from dividing by zero


class Backbone(nn.Module):
    """Restores what a batch of images has lost, as a residual: encoder, decoder and skip connections.

    Starts as the identity: the head is zero. No statistics over the batch.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch, self.multiple = config.patch, config.size_multiple
        widths = [config.width * 2**level for level in range(len(config.blocks))]
        patch_values = 3 * config.patch**2

        deepest = len(widths) - 1

        def stage(level: int) -> nn.Sequential:
            width = widths[level]
            heads = width // config.head_width if level > deepest - config.attention_levels else 0
            return nn.Sequential(*(Block(width, heads, config.expansion) for _ in range(config.blocks[level])))

        self.stem = nn.Conv2d(patch_values, config.width, 3, padding=1)
        self.encoder = nn.ModuleList(stage(level) for level in range(deepest))
        self.down = nn.ModuleList(nn.Linear(4 * widths[i], widths[i + 1], bias=False) for i in range(deepest))
        self.middle = stage(deepest)
        self.up = nn.ModuleList(nn.Linear(widths[i + 1], 4 * widths[i], bias=False) for i in range(deepest))
        self.decoder = nn.ModuleList(stage(level) for level in range(deepest))
        self.head = nn.Conv2d(config.width, patch_values, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    @property
    def reach(self) -> int:
        """Pixels to each side that an output pixel sees through convolutions (channel means see the whole image)."""
        sides = [self.patch * 2**level for level in range(len(self.decoder) + 1)]  # of a position of each level
        # Two convolutions of 3 x 3 in a block; stem and head; each level but the coarsest is passed on both ways.
        convolved = 2 * sides[0] + 2 * len(self.middle) * sides[-1]
        for stage, side in zip(self.encoder, sides, strict=False):
            convolved += 4 * len(list(stage.children())) * side
        return convolved + self.multiple  # and the grid of the coarsest positions

    def forward(self, degraded: Tensor) -> Tensor:
        """(B, 3, H, W) RGB, any H and W, to the same shape; not clipped."""
        height, width = degraded.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            # Reflection would need images larger than the padding; repeating the edge works from 1 x 1 on.
            degraded = F.pad(degraded, (0, right, 0, down), mode="replicate")
        return self._restore(degraded)[..., :height, :width]

    def _restore(self, degraded: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(degraded, self.patch)).permute(0, 2, 3, 1)  # (B, H/p, W/p, C)
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            x = stage(x)
            skips.append(x)
            x = down(_fold(x))
        x = self.middle(x)
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](_unfold(self.up[level](x)) + skips[level])
        return degraded + F.pixel_shuffle(self.head(x.permute(0, 3, 1, 2)), self.patch)


class Block(nn.Module):
    """One transformer block: a token mixer, then a gated feed-forward part, each on a residual path.

    The mixer is attention with that many heads, or a gated convolution where `heads` is 0.
    """

    def __init__(self, width: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(width)
        self.mixer = ChannelAttention(width, heads) if heads else GatedConvolution(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = GatedFeedForward(width, int(width * expansion))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.mixer(self.mixer_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class ChannelAttention(nn.Module):
    """Attention between channels instead of positions, so the cost is linear in pixels (Zamir et al. 2022, eq. 1)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.local = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width)
        self.temperature = nn.Parameter(torch.ones(heads))
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        mixed = _depthwise(self.local, self.query_key_value(x)).flatten(1, 2)  # (B, HW, 3C)
        query, key, value = mixed.split(x.shape[-1], dim=-1)
        # Normalising the small products by the norms equals normalising query and key, which are as large as the image.
        norms = query.square().sum(1)[:, :, None] * key.square().sum(1)[:, None]  # (B, C, C)
        attended = []
        head = x.shape[-1] // self.heads
        for number, (q, k, v) in enumerate(
            zip(query.split(head, -1), key.split(head, -1), value.split(head, -1), strict=True)
        ):
            part = slice(number * head, (number + 1) * head)
            cosine = torch.bmm(q.transpose(1, 2), k) * torch.rsqrt(norms[:, part, part] + EPSILON)  # (B, C/h, C/h)
            weights = (cosine * self.temperature[number]).softmax(-1)
            attended.append(torch.bmm(v, weights.transpose(1, 2)))
        return self.project(torch.cat(attended, -1).view(x.shape))


class GatedConvolution(nn.Module):
    """A local mixer: one half of a convolution gates the other, channels are scaled by the mean over the image.

    The first half of the block of Chen et al. 2022 (NAFNet).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * width)
        self.local = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.scale = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = _gate(_depthwise(self.local, self.expand(x)))
        return self.project(x * self.scale(x.mean((1, 2), keepdim=True)))


class GatedFeedForward(nn.Module):
    """Two local projections of which one gates the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden)
        self.local = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.project = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        return self.project(_gate(_depthwise(self.local, self.expand(x))))


def _gate(x: Tensor) -> Tensor:
    """(..., 2C) to (..., C): the product of the halves. A sigmoid on one costs time and gained nothing."""
    first, second = x.chunk(2, dim=-1)
    return first * second


def _depthwise(convolution: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to (B, H, W, C); the permuted view is channels-last memory, so nothing is copied."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _fold(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B, H/2, W/2, 4C): each 2 x 2 neighbourhood becomes one position."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def _unfold(x: Tensor) -> Tensor:
    """(B, H, W, 4C) to (B, 2H, 2W, C), the inverse of `_fold`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)
