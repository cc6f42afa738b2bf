"""Statistics of texture and tone that tell damage from detail, of a batch of image tiles.

Noise shows in the smallest differences, blur in how alike neighbours are, rain in bright lines of one direction, snow
in bright spots, haze in what is darkest. All are means over a tile, at three scales, so its size hardly matters.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = 3  # each half of the one before
LUMA = (0.299, 0.587, 0.114)
STEPS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)  # of differences; the share above each is counted
TONES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
DIRECTIONS, LINE = 8, 11  # line filters: how many, their side in pixels
SMALL = 1e-4  # in [0, 1]: well under a grey level, and kept out of logarithms and quotients


def texture(tiles: Tensor) -> Tensor:
    """(B, 3, h, w) RGB in [0, 1], both sides at least 16, to (B, statistics); finite for every input."""
    found = [_tones(tiles)]
    for scale in range(SCALES):
        if scale:
            tiles = F.avg_pool2d(tiles, 2)
        luma = (tiles * torch.tensor(LUMA, device=tiles.device)[:, None, None]).sum(1, keepdim=True)
        found += [
            _differences(tiles, luma),
            _moments(F.conv2d(F.pad(luma, (LINE // 2,) * 4, mode="replicate"), _lines().to(tiles))),
        ]
        found += [_likeness(luma, axis) for axis in (2, 3)]
        found += [_spots(luma, side) for side in (3, 7)]
    return torch.cat(found, 1)


def _tones(tiles: Tensor) -> Tensor:
    """How the values lie: of luminance, of the darkest channel nearby (low where there is no haze), of saturation."""
    luma = (tiles * torch.tensor(LUMA, device=tiles.device)[:, None, None]).sum(1)
    dark = _smallest(tiles.amin(1, keepdim=True), 9)
    saturation = tiles.amax(1) - tiles.amin(1)
    spread = tiles.flatten(2).std(2)
    return torch.cat([_shares(luma, TONES), _shares(dark, TONES), _shares(saturation, TONES[:8]), spread], 1)


def _differences(tiles: Tensor, luma: Tensor) -> Tensor:
    """The second differences of each channel: size, shape, sizes as shares, colour, and likeness between channels."""
    kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], device=tiles.device)[None, None] / 8
    of_luma = F.conv2d(luma, kernel)
    of_channels = F.conv2d(tiles, kernel.expand(3, 1, 3, 3), groups=3)
    colour = (of_channels - of_luma).abs().mean((2, 3))
    centred = of_channels.flatten(2) - of_channels.mean((2, 3))[..., None]
    unit = centred / (centred.norm(dim=2, keepdim=True) + SMALL)
    likeness = torch.stack([(unit[:, i] * unit[:, j]).sum(1) for i, j in ((0, 1), (0, 2), (1, 2))], 1)
    return torch.cat([_moments(of_luma), _shares(of_luma.abs(), STEPS), (colour + SMALL).log(), likeness], 1)


def _likeness(luma: Tensor, axis: int) -> Tensor:
    """How alike first differences are at 1, 2 and 4 pixels along an axis, and how large they get."""
    step = luma.diff(dim=axis)
    length = step.shape[axis]
    energy = step.square().mean((2, 3)) + SMALL**2
    alike = [
        (step.narrow(axis, 0, length - lag) * step.narrow(axis, lag, length - lag)).mean((2, 3)) / energy
        for lag in (1, 2, 4)
        if lag < length
    ]
    alike += [torch.zeros_like(energy)] * (3 - len(alike))
    return torch.cat([*alike, _shares(step.abs(), (0.02, 0.05, 0.1, 0.2, 0.4))], 1)


def _spots(luma: Tensor, side: int) -> Tensor:
    """Bright and dark spots and lines narrower than `side` (top-hats): size and which prevail."""
    bright = luma - _largest(_smallest(luma, side), side)
    dark = _smallest(_largest(luma, side), side) - luma
    sizes = [value for hat in (bright, dark) for value in (hat.mean((2, 3)), hat.square().mean((2, 3)).sqrt())]
    return torch.cat([*((size + SMALL).log() for size in sizes), _quotient(sizes[0], sizes[2])], 1)


def _quotient(first: Tensor, second: Tensor) -> Tensor:
    return ((first + 10 * SMALL) / (second + 10 * SMALL)).log()


def _moments(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, 3 C): size, peakedness and lopsidedness of each channel's values."""
    x = x.flatten(2)
    size = x.abs().mean(2) + SMALL
    centred = x - x.mean(2, keepdim=True)
    squared = centred.square()
    spread = (squared.mean(2) + SMALL**2).sqrt()
    lopsided = (squared * centred).mean(2) / spread.pow(3)
    return torch.cat([size.log(), (spread / size).log(), lopsided.sign() * lopsided.abs().log1p()], 1)


def _shares(x: Tensor, limits: tuple[float, ...]) -> Tensor:
    """The share of a tile's values above each limit."""
    return torch.stack([(x > limit).flatten(1).sum(1) for limit in limits], 1) / x[0].numel()


def _largest(x: Tensor, side: int) -> Tensor:
    """The largest value within a square of odd `side` around each."""
    # By doubling: on a CPU max_pool2d takes more than ten times as long.
    x = F.pad(x, (side // 2,) * 4, value=-torch.inf)
    for axis in (2, 3):
        reached = 1  # values that each has looked at; twice as many in the next step
        while reached < side:
            step = min(reached, side - reached)
            rest = x.shape[axis] - step
            x = torch.maximum(x.narrow(axis, 0, rest), x.narrow(axis, step, rest))
            reached += step
    return x


def _smallest(x: Tensor, side: int) -> Tensor:
    return -_largest(-x, side)


@functools.cache
def _lines() -> Tensor:
    """(DIRECTIONS, 1, LINE, LINE): second derivatives across a line, smoothed along it; each sums to 0."""
    offset = torch.arange(LINE) - LINE // 2.0
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    kernels = []
    for number in range(DIRECTIONS):
        angle = math.pi * number / DIRECTIONS
        across, along = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        kernel = torch.exp(-(along**2) / 32) * (1 - across**2 / 1.44) * torch.exp(-(across**2) / 2.88)
        kernel = kernel - kernel.mean()
        kernels.append(kernel / kernel.abs().sum())
    return torch.stack(kernels)[:, None]
