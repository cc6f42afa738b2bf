"""Where to cut the noise levels of a set of images: where the best denoiser for these images changes.

For clean images x_1, ..., x_N no denoiser does better than the mean of all of them, each weighted by how likely it has
become the noisy image z of timestep t (Karras et al. 2022, appendix B.3):

    D_t(z) = sum_n w_n x_n        w = softmax_n(-|z - a_t x_n|^2 / (2 s_t^2))        a_t^2 = abar_t, s_t^2 = 1 - abar_t

Where there is little noise it gives the image back, where there is much the mean of all, at each of these levels the
same. So these levels go together, and the cuts lie between (Zhang et al. 2024, "Improving Training Efficiency of
Diffusion Models via Multi-Stage Framework and Tailored Multi-Decoder Architecture", for three intervals by thresholds;
here any number, by least squares).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ipt.diffusion.noise_levels import schedule_of

LEVELS = 64  # timesteps that are looked at
TRIED = 64  # images that are made noisy


def optimal_boundaries(clean: Tensor, scheduler: Any, intervals: int, seed: int) -> list[int]:
    """The first timestep of each interval but the first, from the best denoiser of `clean`, (N, C, H, W) in [0, 1].

    Within the intervals the squared differences of its answers from their mean are as small as they can be. The same
    seed gives the same; a few thousand images are enough. Raises ValueError for fewer than 1 interval or more than
    timesteps.
    """
    schedule = schedule_of(scheduler)
    steps = len(schedule)
    if not 1 <= intervals <= steps:
        raise ValueError(f"noise levels: expected 1 to {steps} intervals, one a timestep at most, got {intervals}")
    timesteps = torch.linspace(0, steps - 1, min(steps, max(LEVELS, 2 * intervals))).round().long()
    answers = best_answers(clean * 2 - 1, schedule[timesteps], seed)
    return timesteps[cut(_distances(answers), intervals)].tolist()


@torch.no_grad()
def best_answers(images: Tensor, schedule: Tensor, seed: int) -> Tensor:
    """What the best denoiser of `images` (N, ...) makes of some of them at each level of `schedule` (L,): (L, n, d).

    At all levels the same images and the same noise.
    """
    flat = images.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    tried = flat[torch.randperm(len(flat), generator=generator)[:TRIED]]
    noise = torch.randn(tried.shape, generator=generator, dtype=tried.dtype)
    half_norms = flat.square().sum(1) / 2
    answers = []
    for abar in schedule.clamp(1e-9, 1 - 1e-9).tolist():
        noisy = abar**0.5 * tried + (1 - abar) ** 0.5 * noise
        # -|z - a x|^2 / 2 s^2 without |z|^2, which is the same for all x
        likely = (abar**0.5 * (noisy @ flat.T) - abar * half_norms) / (1 - abar)
        answers.append(likely.softmax(1) @ flat)
    return torch.stack(answers)


def cut(distances: Tensor, count: int) -> list[int]:
    """Where to cut L levels in a row into `count` parts, given their squared distances (L, L): the first level of each
    part but the first.

    The sum over parts of the squared distances from each part's mean is the least possible (by dynamic programming).
    Raises ValueError for fewer than 1 part or more than levels.
    """
    levels = len(distances)
    if not 1 <= count <= levels:
        raise ValueError(f"cut: expected 1 to {levels} parts, one a level at most, got {count}")
    sums = torch.zeros(levels + 1, levels + 1, dtype=torch.float64)
    sums[1:, 1:] = distances.double().cumsum(0).cumsum(1)
    starts, ends = torch.meshgrid(torch.arange(levels + 1), torch.arange(levels + 1), indexing="ij")
    within = sums[ends, ends] - sums[starts, ends] - sums[ends, starts] + sums[starts, starts]
    # Squared distances of n points from their mean sum up to those of all pairs, both ways, over 2 n.
    cost = torch.where(starts < ends, within / (2 * (ends - starts).clamp_min(1)), torch.inf)
    least, before = cost[0], []  # of the first levels, up to each end, in one part, then in one more each time
    for _ in range(count - 1):
        least, start = (least[:, None] + cost).min(0)
        before.append(start)
    found, end = [], levels
    for start in reversed(before):
        end = int(start[end])
        found.append(end)
    return found[::-1]


def _distances(answers: Tensor) -> Tensor:
    """Mean over images of the squared distance between levels: (L, n, d) to (L, L)."""
    flat = answers.flatten(1).double()
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square() / answers.shape[1]
