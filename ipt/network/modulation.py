"""Task biases: low-rank, per-task additions to the weights of any network with Linear or Conv2d layers.

For a layer with weight W (out x in; a k x k convolution is seen as out x (in/groups * k * k)), task t and rank r:

    W_t = W + s * U_t V_t        U: (T, out, r), V: (T, r, in)

U and V are stacked over tasks, so DistributedDataParallel sees the same parameters used at every step. Where tasks have
ranks of their own, their factors lie side by side: U (out, sum of ranks), V (sum of ranks, in). A batch may mix tasks:
each sample meets the weights of its own. Building W_t costs out * in * r once per task; the usual side branch (x V U)
costs a pass over the activations, which for images is the expensive thing.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class TaskSelection:
    """Which task each sample of the current batch belongs to; shared by all modulated layers of one model."""

    def __init__(self) -> None:
        self.index: Tensor | None = None  # (B,) task of each sample; None: backbone alone
        self.equal_runs = 0  # samples per task where the batch is tasks in order, each equally often; else 0
        self.runs: list[int] = []  # of each task where it is tasks in order, but not equally often; else empty
        self.runs_of: Tensor | None = None  # the tasks of these runs; None: all
        self.strength = 1.0

    @staticmethod
    def rows_per_sample(index: Tensor, batch: int) -> int:
        """How many rows of a layer's input belong to each sample: 1, or the windows that an image is cut into.

        Raises ValueError where the rows cannot be shared out evenly: a wrong index, or a layer that works on something
        that all samples share.
        """
        rows, rest = divmod(batch, len(index))
        if rest or not rows:
            raise ValueError(
                f"task index: expected one task for each sample, got {len(index)} for an input of {batch} rows; "
                "if this layer's input is not the samples, leave it out of `layers`"
            )
        return rows


class ModulatedLayer(nn.Module):
    """What the two modulated layer kinds share: a weight, an optional plain bias and the factors of all tasks."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, ranks: tuple[int, ...], selection: TaskSelection) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.ranks = ranks  # of each task
        rows, columns = layer.weight.flatten(1).shape
        new: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        stack, rank = ((len(ranks),), ranks[0]) if len(set(ranks)) == 1 else ((), sum(ranks))
        self.task_up = nn.Parameter(torch.zeros(*stack, rows, rank, **new))  # U: zero, so W_t = W at start
        self.task_down = nn.Parameter(torch.randn(*stack, rank, columns, **new) * columns**-0.5)  # V
        self.selection = selection

    def factors(self, task: int) -> tuple[Tensor, Tensor]:
        """U (out, r) and V (r, in) of one task, with the rank of that task; parts of the parameters, not copies."""
        if self.task_up.dim() == 3:
            return self.task_up[task], self.task_down[task]
        first = sum(self.ranks[:task])
        part = slice(first, first + self.ranks[task])
        return self.task_up[:, part], self.task_down[part]

    def stacked_factors(self) -> tuple[Tensor, Tensor]:
        """U (T, out, r) and V (T, r, in) with the largest rank of all tasks; what a task lacks of it is zeros."""
        if self.task_up.dim() == 3:
            return self.task_up, self.task_down
        each, most = [self.factors(task) for task in range(len(self.ranks))], max(self.ranks)
        up = torch.stack([F.pad(up, (0, most - up.shape[1])) for up, _ in each])
        return up, torch.stack([F.pad(down, (0, 0, 0, most - len(down))) for _, down in each])

    def task_weights(self) -> Tensor:
        """W + s U V of every task, or of those of the batch's runs, (T, out, in)."""
        of, weight = self.selection.runs_of, self.weight.flatten(1)
        up, down = self.stacked_factors()
        if of is not None:
            up, down = up[of], down[of]
        return torch.baddbmm(weight.expand(len(up), -1, -1), up, down, alpha=self.selection.strength)

    def task_weight(self, task: int) -> Tensor:
        """W + s U V of one task, in the shape of `weight`."""
        up, down = self.factors(task)
        return self.weight + self.selection.strength * (up @ down).view_as(self.weight)


class ModulatedLinear(ModulatedLayer):
    """A Linear layer whose weight depends on the task of each sample."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., in) to (B, ..., out)."""
        selection = self.selection
        if selection.index is None:
            return F.linear(x, self.weight, self.bias)
        rows = selection.rows_per_sample(selection.index, len(x))
        weights = self.task_weights()
        if selection.runs:
            parts = zip(x.split([run * rows for run in selection.runs]), weights, strict=True)
            return torch.cat([F.linear(part, weight, self.bias) for part, weight in parts])
        if not selection.equal_runs:
            weights = weights[selection.index]
        grouped = x.reshape(len(weights), -1, x.shape[-1])  # samples of one task (or one sample) per matrix
        out = (
            torch.bmm(grouped, weights.transpose(1, 2))
            if self.bias is None
            else torch.baddbmm(self.bias, grouped, weights.transpose(1, 2))
        )
        return out.view(*x.shape[:-1], out.shape[-1])


class ModulatedConv2d(ModulatedLayer):
    """A Conv2d layer (grouped and depthwise ones too) whose weight depends on the task of each sample."""

    def __init__(self, layer: nn.Conv2d, ranks: tuple[int, ...], selection: TaskSelection) -> None:
        super().__init__(layer, ranks, selection)
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError(f"modulate: expected a Conv2d with numeric zero padding, got {layer}")
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H', W')."""
        rest = (self.stride, self.padding, self.dilation)
        if self.selection.index is None:
            return F.conv2d(x, self.weight, self.bias, *rest, self.groups)
        batch = len(x)
        rows = self.selection.rows_per_sample(self.selection.index, batch)
        weights = self.task_weights()
        runs = [run * rows for run in self.selection.runs]
        if runs or self.selection.equal_runs:  # a call for each task: faster on channels-last memory than a grouped one
            weights = weights.view(-1, *self.weight.shape)
            parts = zip(x.split(runs) if runs else x.chunk(len(weights)), weights, strict=True)
            return torch.cat([F.conv2d(part, weight, self.bias, *rest, self.groups) for part, weight in parts])
        weights = weights[self.selection.index.repeat_interleave(rows)]  # (B, out, in/groups * k * k)
        weights = weights.reshape(batch * len(self.weight), *self.weight.shape[1:])
        # One grouped convolution: the samples become groups of channels of a single image.
        out = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weights, None, *rest, batch * self.groups)
        out = out.view(batch, -1, *out.shape[2:])
        return out if self.bias is None else out + self.bias[:, None, None]


def modulate(model: Model, tasks: int, rank: int | Sequence[int] | None, layers: Sequence[str] = ("*",)) -> Model:
    """Give the layers of `model` whose names match one of the patterns a task bias each, in place.

    `layers` are shell patterns on module names ("encoder.*"). Only layers that are exactly Linear or Conv2d count: a
    subclass may be used by its owner in other ways than by calling it. `rank` is that of every task, or a list of one
    for each, where 0 leaves a task the backbone's weights. A layer with fewer rows or columns than a rank gets a bias
    of full rank, as all do where `rank` is None (for analysis). Returns `model`; its output is unchanged until the task
    factors are trained. Raises ValueError, with `model` untouched, for a rank below 1, ranks that are not one for each
    task or are all 0, a model without a layer to modulate, a pattern that matches none, a layer with another padding
    than numbers of zeros, or a model that is modulated already.
    """
    wanted = _ranks(tasks, rank)
    if modulated_layers(model):
        raise ValueError("modulate: the model has task biases already")
    candidates = {
        name: layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if name and type(layer) in (nn.Linear, nn.Conv2d)
    }
    if not candidates:
        raise ValueError(f"modulate: {type(model).__name__} has no Linear or Conv2d layer inside")
    selection = TaskSelection()
    modulated: dict[nn.Module, ModulatedLayer] = {}  # a layer that stands in two places stays one layer
    names = _matching(candidates, layers)
    for name in names:
        layer = candidates[name]
        if layer not in modulated:
            kind = ModulatedLinear if isinstance(layer, nn.Linear) else ModulatedConv2d
            full = min(layer.weight.flatten(1).shape)
            modulated[layer] = kind(layer, tuple(full if r is None else min(r, full) for r in wanted), selection)
    for name in names:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, modulated[candidates[name]])
    return model


def _ranks(tasks: int, rank: int | Sequence[int] | None) -> Sequence[int | None]:
    """The rank of each task; None: full."""
    if rank is None or isinstance(rank, int):
        if tasks < 1 or (rank is not None and rank < 1):
            raise ValueError(
                f"modulate: expected rank and number of tasks of 1 or more, got rank {rank}, {tasks} tasks"
            )
        return [rank] * tasks
    if len(rank) != tasks or not any(rank) or not all(isinstance(r, int) and r >= 0 for r in rank):
        raise ValueError(
            f"modulate: expected a rank for each of {tasks} tasks, whole numbers of 0 or more and not all 0, got "
            f"{list(rank)}"
        )
    return rank


def _matching(candidates: dict[str, nn.Module], patterns: Sequence[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            close = difflib.get_close_matches(pattern, candidates, n=3)
            raise ValueError(
                f"modulate: no Linear or Conv2d layer matches '{pattern}'; "
                + (f"did you mean {', '.join(close)}?" if close else f"the model has {len(candidates)}")
            )
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in patterns)]


def modulated_layers(model: nn.Module) -> dict[str, ModulatedLayer]:
    """The modulated layers of `model` by name; empty for a plain model."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, ModulatedLayer)}


def task_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All task factors (U and V of every layer)."""
    return [factor for layer in modulated_layers(model).values() for factor in (layer.task_up, layer.task_down)]


@contextmanager
def selected(model: nn.Module, index: Tensor | None, strength: float = 1.0) -> Iterator[None]:
    """Inside the block, sample b of a batch meets the weights of task `index[b]`; None: the backbone alone."""
    layers = list(modulated_layers(model).values())
    if not layers:  # a plain network is the same for every task
        yield
        return
    selection = layers[0].selection
    before = vars(selection).copy()
    select(selection, index, len(layers[0].ranks), strength)
    try:
        yield
    finally:
        vars(selection).update(before)


def select(selection: TaskSelection, index: Tensor | None, tasks: int, strength: float = 1.0) -> None:
    """Set the tasks of the next batch: `index` (B,) of integers in [0, tasks); a ValueError names others."""
    if (
        index is not None
        and index.device.type == "cpu"
        and len(index)
        and not 0 <= int(index.min()) <= int(index.max()) < tasks
    ):
        raise ValueError(f"task index: expected integers from 0 to {tasks - 1}, got {index.tolist()}")
    selection.index, selection.equal_runs, selection.runs, selection.runs_of = index, 0, [], None
    selection.strength = strength
    if index is None or not len(index):
        return
    present, counts = index.unique_consecutive(return_counts=True)
    # One of several tasks alone goes the way of a mixed batch: compiled, that is one graph for all.
    if (len(present) > 1 or tasks == 1) and bool((present.diff() > 0).all()):
        selection.runs_of = None if len(present) == tasks else present
        if bool((counts == counts[0]).all()):
            selection.equal_runs = len(index) // len(present)
        else:
            selection.runs = counts.tolist()


def merge(model: Model, task: int, strength: float = 1.0) -> Model:
    """A plain copy of `model` that has W_t of one task in its weights: same output, the plain backbone's speed."""
    merged = copy.deepcopy(model)
    for name, layer in modulated_layers(merged).items():
        layer.selection.strength = strength
        with torch.no_grad():
            weight = nn.Parameter(layer.task_weight(task))
        parent, _, attribute = name.rpartition(".")
        setattr(merged.get_submodule(parent), attribute, _plain(layer, weight))
    return merged


def _plain(layer: ModulatedLayer, weight: nn.Parameter) -> nn.Module:
    plain: nn.Conv2d | nn.Linear
    if isinstance(layer, ModulatedConv2d):
        # Pairs, though torch's types do not say so.
        pairs: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        plain = nn.Conv2d(
            weight.shape[1] * layer.groups,
            weight.shape[0],
            kernel_size=(weight.shape[2], weight.shape[3]),
            groups=layer.groups,
            bias=layer.bias is not None,
            device="meta",
            **pairs,
        )
    else:
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta")
    plain.weight, plain.bias = weight, layer.bias
    return plain
