"""Which weights must be task-specific: what each layer's bias gains each task, and the levels where that is most.

From a common backbone, biases of full rank are trained for a short while with the backbone held (`fit_biases`). A
layer's score for a task is the PSNR that its removal costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

import torch
from torch import Tensor, nn

from ipt.biases.adapters import hold_backbone
from ipt.network.modulation import modulated_layers, selected
from ipt.training.batch import Batch
from ipt.training.fit import StepReport, TrainingSettings, TrainingState, fit


class ByTask(nn.Module):
    """A network as `fit` calls it: with the task of each sample, which a plain network does not heed."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, degraded: Tensor, index: Tensor) -> Tensor:
        """(B, 3, H, W) and (B,) to the restored images."""
        with selected(self.network, index):
            return self.network(degraded)


def fit_all(
    network: nn.Module,
    batches: Iterator[Batch],
    settings: TrainingSettings,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> nn.Module:
    """Train all of `network`, in place; returns the averaged network, ready for inference."""
    state = TrainingState(ByTask(network), settings)
    fit(state, batches, on_step=on_step)
    return state.ema.module.get_submodule("network").eval()


def fit_biases(
    network: nn.Module,
    batches: Iterator[Batch],
    settings: TrainingSettings,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> nn.Module:
    """Train the task biases of `network` alone, in place, all else held; returns the averaged network."""
    held = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    hold_backbone(network)
    try:
        return fit_all(network, batches, settings, on_step)
    finally:
        for parameter, trained in held:
            parameter.requires_grad_(trained)


def sensitivity(model: nn.Module, psnr: Callable[[nn.Module], Sequence[float]]) -> dict[str, list[float]]:
    """By layer, for each task: PSNR with all biases less PSNR without this layer's, in dB.

    `psnr` measures a model on each task. Positive: the layer's bias helps the task.
    """
    complete = list(psnr(model))
    scores = {}
    for name in modulated_layers(model):
        with without_biases(model, [name]):
            scores[name] = [all_biases - less for all_biases, less in zip(complete, psnr(model), strict=True)]
    return scores


@contextmanager
def without_biases(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside the block the layers called `names` have no task biases."""
    layers = [modulated_layers(model)[name] for name in names]
    kept = [layer.task_up.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer in layers:
            layer.task_up.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, up in zip(layers, kept, strict=True):
                layer.task_up.copy_(up)


def choose_layers(scores: dict[str, list[float]], least: float, group: Callable[[str], str] = str) -> list[str]:
    """The layers of each group that gains at least `least` times the mean score of all layers, a layer of its.

    `group` names a layer's group; without it each is one by itself. Score is the mean over tasks, each relative to its
    own sum: so a task with small gains has its say. The best group is always chosen; layers come in the order of the
    model. Raises ValueError where no layer helps.
    """
    table = torch.tensor(list(scores.values()), dtype=torch.float64).clamp_min(0)  # (layers, tasks)
    if not table.sum():
        raise ValueError("sensitivity: no layer's bias gains anything; train the biases longer")
    relative = (table / table.sum(0).clamp_min(1e-12)).mean(1).tolist()
    groups: dict[str, list[float]] = {}
    for name, score in zip(scores, relative, strict=True):
        groups.setdefault(group(name), []).append(score)
    means = {name: fmean(values) for name, values in groups.items()}
    enough = min(least * fmean(relative), max(means.values()))
    return [name for name in scores if means[group(name)] >= enough]


def level_of(layer: str) -> str:
    """The level of a `Backbone` that a layer works at, by its name: 0, the finest, with stem and head, 1, ..., middle.

    Layers are chosen by levels, since which single ones come out above a cut changes from seed to seed, and with the
    order in which threads add up; between levels there is a gap.
    """
    part, *path = layer.split(".")
    return "middle" if part == "middle" else path[0] if path else "0"
