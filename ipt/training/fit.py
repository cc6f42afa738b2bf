"""Synchronous training of backbone and task biases: one backward pass over a batch that holds every task.

Plain torch: an iterator of batches comes in, reports go out through callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ipt.network.modulation import task_parameters
from ipt.training.batch import Batch
from ipt.training.losses import (
    balanced_loss,
    gradient_conflict,
    restoration_loss,
    running_scale,
    task_errors,
    task_means,
)
from ipt.training.schedule import decayed, kept_of_average
from ipt.weights import load_weights, save_weights


@dataclass(frozen=True)
class TrainingSettings:
    """The numbers of a training; learning rates per AdamW step."""

    steps: int
    learning_rate: float
    bias_learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    ema_decay: float
    task_weights: tuple[float, ...]  # of each task's part in the loss
    bf16: bool
    decay_steps: int | None = None  # over so many last steps the learning rates fall; None: from the warm-up on
    frequency_weight: float = 0.0  # of `ipt.training.losses.restoration_loss`
    samples_at_once: int | None = None  # at most so many of a batch go through the network together; None: all


@dataclass(frozen=True)
class StepReport:
    """What one step was like: losses, and where the time went, in seconds."""

    step: int  # steps done, this one included
    loss: float  # mean over samples
    task_loss: tuple[float, ...]  # mean loss of the samples of each task of the batch
    gradient_norm: float  # before clipping
    gradient_conflict: float | None  # of `ipt.training.losses`; None in most steps
    learning_rate: float
    samples: int
    step_seconds: float  # from batch to batch, waiting included
    wait_seconds: float  # of these, waiting for the batch


class TrainingState:
    """Everything that training changes: saved and loaded whole, so that a continued run equals a straight one."""

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        self.step = 0
        self.task_scale: Tensor | None = None  # running mean of each task's error, over all workers
        self.model = model
        self.settings = settings
        self.ema = AveragedModel(model, multi_avg_fn=_ema_update(settings.ema_decay))
        biases = task_parameters(model)
        known = {id(p) for p in biases}
        backbone = [p for p in model.parameters() if id(p) not in known and p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": backbone, "peak": settings.learning_rate},
                {"params": biases, "peak": settings.bias_learning_rate},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=True,  # a small step on a CPU spends a tenth of its time here otherwise
        )

    def save(self, folder: Path) -> None:
        """Write weights, averaged weights, optimizer, CPU random state and step into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder / "model.safetensors")
        save_weights(self.ema.module, folder / "ema.safetensors")
        torch.save(
            {
                "step": self.step,
                "averaged": self.ema.n_averaged,
                "task_scale": self.task_scale,
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            folder / "training.pt",
        )

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        load_weights(self.model, folder / "model.safetensors")
        load_weights(self.ema.module, folder / "ema.safetensors")
        saved = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        self.step = saved["step"]
        scale = saved["task_scale"]
        self.task_scale = None if scale is None else scale.to(next(self.model.parameters()).device)
        self.ema.n_averaged.copy_(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])


def fit(
    state: TrainingState,
    batches: Iterator[Batch],
    *,
    network: nn.Module | None = None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    conflict_every: int | None = None,
    weight: float = 1.0,
) -> None:
    """Train until `settings.steps`; `network` is the model as wrapped for distributed training, if it is.

    Every `conflict_every` steps the report holds the `gradient_conflict` of its batch, which costs as much as a pass
    backward for each task. `weight` is this worker's number of samples relative to the mean over workers. `on_step` is
    called after every step and may save the state. Raises RuntimeError where the batches end early or the loss is no
    longer a finite number.
    """
    network = network or state.model
    device = next(network.parameters()).device
    network.train()
    started = time.perf_counter()
    while state.step < state.settings.steps:
        batch = next(batches, None)
        if batch is None:
            raise RuntimeError(f"training data ended after step {state.step} of {state.settings.steps}")
        waited = time.perf_counter()
        batch = batch.to(device)
        asked = conflict_every and (state.step + 1) % conflict_every == 0
        conflict = _conflict(state, batch) if asked else None
        report = synchronous_step(state, network, batch, weight)
        ended = time.perf_counter()
        state.step += 1
        on_step(
            StepReport(
                step=state.step,
                samples=len(batch.index),
                step_seconds=ended - started,
                wait_seconds=waited - started,
                gradient_conflict=conflict,
                **report,
            )
        )
        started = time.perf_counter()


def synchronous_step(state: TrainingState, network: nn.Module, batch: Batch, weight: float = 1.0) -> dict[str, Any]:
    """One update of backbone and all task biases from a batch of every task; returns losses and gradient norm.

    The gradient is that of the whole batch, also where its parts go through the network one after the other. `weight`
    as in `fit`.
    """
    settings = state.settings
    factor = learning_rate_factor(state.step, settings)
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    tasks, counts = batch.index.unique(return_counts=True)
    parts = batch.parts(settings.samples_at_once)
    if state.task_scale is None:
        with torch.no_grad():  # and not by `network`, which might be compiled for this once
            first = [_errors(state, state.model, part, tasks, counts)[0] for part in parts]
        state.task_scale = running_scale(torch.stack(first).sum(0), None, weight)
    state.optimizer.zero_grad(set_to_none=True)
    errors, task_loss = _add_gradients(state, network, parts, tasks, counts, weight)
    norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
    loss = (task_loss * counts).sum() / counts.sum()
    if not torch.isfinite(norm):
        raise RuntimeError(
            f"step {state.step + 1}: loss {loss.item()}, gradient norm {norm.item()}: training has "
            "diverged; lower train.learning_rate or train.clip_norm"
        )
    state.task_scale = running_scale(errors, state.task_scale, weight)
    state.optimizer.step()
    state.ema.update_parameters(state.model)
    return {
        "loss": loss.item(),
        "task_loss": tuple(task_loss.tolist()),
        "gradient_norm": norm.item(),
        "learning_rate": settings.learning_rate * factor,
    }


def _add_gradients(
    state: TrainingState, network: nn.Module, parts: Sequence[Batch], tasks: Tensor, counts: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Backward passes of the parts of a batch; the error and the mean distance of each of its tasks, (T,) each."""
    assert state.task_scale is not None
    task_weights = torch.tensor(state.settings.task_weights, device=tasks.device)[tasks]
    errors, means = [], []
    for number, part in enumerate(parts, 1):
        with nullcontext() if number == len(parts) else _alone(network):
            of_part, distances = _errors(state, network, part, tasks, counts)
            balanced_loss(of_part, state.task_scale, task_weights, weight).backward()
        errors.append(of_part.detach())
        means.append(distances)
    return torch.stack(errors).sum(0), torch.stack(means).sum(0)


def _errors(
    state: TrainingState, network: nn.Module, batch: Batch, tasks: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """What part of a batch adds to the error and to the mean distance of each of its tasks, (T,) each."""
    with torch.autocast(batch.degraded.device.type, torch.bfloat16, enabled=state.settings.bf16):
        restored = network(batch.degraded, batch.index)
    weight = state.settings.frequency_weight
    distances = restoration_loss(restored.float(), batch.clean, weight)
    errors = task_errors(distances, batch.index, tasks, counts, weight)
    return errors, task_means(distances.detach(), batch.index, tasks, counts)


def _conflict(state: TrainingState, batch: Batch) -> float:
    """Of the gradients of the tasks of a batch, before its step."""
    weight = state.settings.frequency_weight
    return gradient_conflict(state.model, batch.degraded, batch.clean, batch.index, weight)


def _alone(network: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients are added up in this worker alone: the last part's backward pass exchanges the sum."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def learning_rate_factor(step: int, settings: TrainingSettings) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then the peak, then a cosine to 1 % at the last step.

    With a constant middle, a run need not know when it ends (Zhai et al. 2022): whoever wants a finished model decays
    a copy of it.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    decay = settings.steps if settings.decay_steps is None else settings.decay_steps
    start = max(settings.steps - decay, settings.warmup_steps)
    return decayed(max(step - start, 0) / max(settings.steps - 1 - start, 1))


def _ema_update(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average, as `AveragedModel` calls it."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(list(averaged), list(current), 1 - kept_of_average(decay, int(count)))

    return update
