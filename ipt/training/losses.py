"""How far restored images are from clean ones, and how tasks share a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ipt.network.modulation import task_parameters

SOFTNESS = 0.1  # e of the Charbonnier distance
FAINT = 10 ** (-67 / 20)  # standard deviation of noise that is as good as none: 67 dB
MEMORY = 0.95  # of the running mean of each task's error, by step


def task_means(values: Tensor, index: Tensor, tasks: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean of the values (B,) of each of the `tasks` (T,): (T,).

    With `counts` (T,), how many values each task has in all, the values may be a part of them: what they add to it.
    """
    if counts is None:
        return torch.stack([values[index == task].mean() for task in tasks])
    return torch.stack([values[index == task].sum() for task in tasks]) / counts


def task_errors(
    distances: Tensor, index: Tensor, tasks: Tensor, counts: Tensor | None = None, frequency_weight: float = 0.0
) -> Tensor:
    """Mean of `sample_errors` of the distances (B,) of each of the `tasks`, (T,); `counts` as in `task_means`."""
    return task_means(sample_errors(distances, frequency_weight), index, tasks, counts)


def sample_errors(distances: Tensor, frequency_weight: float = 0.0) -> Tensor:
    """Cube root of each of what `restoration_loss` gave with that `frequency_weight`, and a little: (B,) to (B,).

    The root keeps the most damaged images of a task (long blurs) from deciding at the cost of the lightly damaged. The
    little is the distance of faint noise: without it images without damage, where the root is steepest, would decide.
    """
    # Deblurring gained with the cube root only; the fourth root and the logarithm cost the other tasks more.
    faint = FAINT**2 / (2 * SOFTNESS) + frequency_weight * FAINT / math.sqrt(math.pi)
    return (distances + faint) ** (1 / 3)


def balanced_loss(errors: Tensor, scale: Tensor, task_weights: Tensor, weight: float = 1.0) -> Tensor:
    """Weighted mean over tasks of `errors` (T,), each relative to `scale` (T,), its running mean before this step.

    So a task pulls by its relative error, as in PSNR, and not by its size: else the task with the largest (haze)
    decides alone where the backbone goes. `weight` is this worker's number of samples relative to the mean over
    workers: the loss comes times `weight`, so that its mean over workers is that over samples. The losses of the parts
    of a batch add up to its loss.
    """
    return (errors / scale * task_weights).sum() / task_weights.sum() * weight


def running_scale(errors: Tensor, scale: Tensor | None, weight: float = 1.0) -> Tensor:
    """The running mean over steps and workers of each task's error, (T,), with this step's `errors` (T,).

    `scale` is the mean so far, None before the first step; `weight` as in `balanced_loss`. The same on every worker.
    """
    overall = errors.detach() * weight
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(overall)
        overall /= torch.distributed.get_world_size()
    return overall if scale is None else overall.lerp(scale, MEMORY)


def gradient_conflict(
    network: nn.Module, degraded: Tensor, clean: Tensor, index: Tensor, frequency_weight: float = 0.0
) -> float:
    """Mean cosine between the tasks' gradients of what they share (all trained parameters but the task biases).

    1: every task wants the same step; 0: unrelated; below: they undo one another (Yu et al. 2020). The network's own
    gradients stay as they are. Not a number for a batch of one task, or where nothing shared is trained.
    `frequency_weight` as in `restoration_loss`.
    """
    own = {id(factor) for factor in task_parameters(network)}
    shared = [p for p in network.parameters() if p.requires_grad and id(p) not in own]
    tasks = index.unique()
    if not shared:
        return math.nan
    distances = restoration_loss(network(degraded, index).float(), clean, frequency_weight)
    gradients = []
    for error in task_errors(distances, index, tasks, None, frequency_weight):
        parts = torch.autograd.grad(error, shared, retain_graph=True, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    directions = nn.functional.normalize(torch.stack(gradients), dim=1)  # (T, P)
    count = len(tasks)
    between = (directions @ directions.T).sum() - directions.square().sum()
    return between.item() / (count * (count - 1)) if count > 1 else math.nan


def restoration_loss(restored: Tensor, clean: Tensor, frequency_weight: float = 0.0) -> Tensor:
    """How far restored images are from clean ones, by sample: (B, 3, H, W) to (B,); 0 where equal.

    Charbonnier distance sqrt(x^2 + e^2) - e with e = 0.1: quadratic below a tenth of the range, linear above
    (Charbonnier et al. 1994). With the usual e = 0.001 it is the absolute error, whose best answer to sparse damage
    such as rain is to leave the image as it is. To it comes, times `frequency_weight`, the mean absolute difference of
    real and imaginary parts between the orthonormal Fourier transforms of the two (the frequency reconstruction loss
    of Cho et al. 2021, at the whole resolution).
    """
    difference = restored - clean
    distances = (difference.square() + SOFTNESS**2).sqrt().sub(SOFTNESS).mean((1, 2, 3))
    if not frequency_weight:
        return distances
    spectrum = torch.view_as_real(torch.fft.rfft2(difference, norm="ortho"))
    return distances + frequency_weight * spectrum.abs().mean((1, 2, 3, 4))
