"""The bias of one task by itself: taken out of a model, put into another, added as a new task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ipt.network.modulation import ModulatedLayer, modulated_layers, task_parameters
from ipt.weights import misfits


def adapter_state(model: nn.Module, task: int) -> dict[str, Tensor]:
    """The bias of one task: LAYER.task_up (out, r) and LAYER.task_down (r, in) of every modulated layer, copied.

    Raises ValueError for a model without biases or a task that it does not have.
    """
    return {name: factor.detach().clone() for name, factor in _factors(model, task).items()}


@torch.no_grad()
def load_adapter(model: nn.Module, task: int, state: dict[str, Tensor]) -> None:
    """Make a bias that `adapter_state` gave that of `task`; the other tasks keep theirs to the bit.

    Raises ValueError, with `model` untouched, where layers or shapes differ from the model's.
    """
    expected = _factors(model, task)
    if problems := misfits({name: factor.shape for name, factor in expected.items()}, state):
        raise ValueError(f"adapter: does not fit the model: {problems}")
    for name, factor in expected.items():
        factor.copy_(state[name])


def hold_backbone(model: nn.Module) -> None:
    """Let the task biases of `model` be trained and nothing else in it."""
    model.requires_grad_(False)
    for factor in task_parameters(model):
        factor.requires_grad_(True)


def add_task(model: nn.Module) -> int:
    """Give every modulated layer of `model` a bias for one more task, in place; returns the new task's number.

    It starts at zero, as the task-general backbone, with the largest rank of the others. The factors are new
    parameters, so an optimizer made before does not know them. To train the new task alone: freeze the backbone,
    batches of this task, no weight decay; rows without gradient then stay as they are.
    """
    layers = _layers(model, 0)
    tasks = len(next(iter(layers.values())).ranks)
    for layer in layers.values():
        up, down, rank = layer.task_up.detach(), layer.task_down.detach(), max(layer.ranks)
        stack, across = ((1,), 0) if up.dim() == 3 else ((), 1)
        fresh = down.new_empty(*stack, rank, down.shape[-1]).normal_() * down.shape[-1] ** -0.5
        layer.task_up = nn.Parameter(torch.cat([up, up.new_zeros(*stack, up.shape[-2], rank)], across))
        layer.task_down = nn.Parameter(torch.cat([down, fresh]))
        layer.ranks = (*layer.ranks, rank)
    return tasks


def _factors(model: nn.Module, task: int) -> dict[str, Tensor]:
    """U and V of one task in every modulated layer; parts of the parameters."""
    return {
        f"{name}.{part}": factor
        for name, layer in _layers(model, task).items()
        for part, factor in zip(("task_up", "task_down"), layer.factors(task), strict=True)
    }


def _layers(model: nn.Module, task: int) -> dict[str, ModulatedLayer]:
    layers = modulated_layers(model)
    if not layers:
        raise ValueError("adapter: the model has no task biases; `modulate` it first")
    tasks = len(next(iter(layers.values())).ranks)
    if not 0 <= task < tasks:
        raise ValueError(f"adapter: expected a task from 0 to {tasks - 1}, got {task}")
    return layers
