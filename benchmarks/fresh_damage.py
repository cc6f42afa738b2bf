"""Train on one device with damage made anew for every pair: no shards, no Ray, no DVC.

How the weights of a release come from a lent GPU (docs/release.md): all cores but one damage squares of the
photographs, the device keeps a pool of them and cuts its crops from it. Learning rates and the size of the crops follow
the clock, so that the model is finished when `--seconds` are over; which squares come in which order depends on the
seed alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.fresh_pairs import Blocks, Pool, read_photographs
from ipt.biases.adapters import hold_backbone
from ipt.network.checkpoint import load_checkpoint, save_model
from ipt.network.modulation import select
from ipt.network.precision import uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.training.fit import TrainingState
from ipt.training.losses import balanced_loss, restoration_loss, running_scale, sample_errors
from ipt.training.schedule import decayed, kept_of_average
from pipelines.common.params import Params, load_params
from pipelines.training.choice import model_config, read_choice, training_settings

HELD_OUT_SEED = 10**9
WARMUP = 300  # steps
EAGER = 3  # steps before one is recorded as a graph: the compiler and the libraries set themselves up in them


@dataclass
class Recorded:
    """A step of crops of one shape as a CUDA graph, with the memory where it finds them and leaves what it tells."""

    given: tuple[Tensor, Tensor]
    told: tuple[Tensor, Tensor] = field(init=False)
    graph: torch.cuda.CUDAGraph = field(default_factory=torch.cuda.CUDAGraph)
    seen: int = 0


@dataclass
class Phase:
    """A part of the training: until which share of its time, with how many samples of a task, of how many pixels."""

    until: float
    each: int
    side: int


@dataclass
class Trainer:
    """A network with all that its steps need; on a GPU the whole step is one CUDA graph, launched at once."""

    network: TaskNetwork
    params: Params
    compiled: bool

    def __post_init__(self) -> None:
        self.device = next(self.network.parameters()).device
        settings = training_settings(self.params, 1, uses_bf16(self.params.train.precision, self.device))
        self.state = TrainingState(self.network, settings)
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.weights = torch.tensor(settings.task_weights, device=self.device)
        self.tasks = torch.arange(len(self.params.tasks), device=self.device)
        self.forward = torch.compile(self.network.backbone, dynamic=False) if self.compiled else self.network.backbone
        self.latest = [weight.data for weight in self.network.parameters()]
        self.averages = [weight.data for weight in self.state.ema.module.parameters()]
        self.newest = torch.zeros((), device=self.device)  # the part of the latest weights in the averaged ones
        for group in self.state.optimizer.param_groups:  # numbers that a graph finds where they were
            group["lr"], group["capturable"] = torch.zeros((), device=self.device), self.device.type == "cuda"
        self.recorded: dict[torch.Size, Recorded] = {}

    def update(self, degraded: Tensor, clean: Tensor, done: float) -> tuple[Tensor, Tensor]:
        """One step at `done` of the whole time; the mean loss of each task and the norm of the gradient."""
        state = self.state
        factor = min((state.step + 1) / WARMUP, decayed(done))
        for group in state.optimizer.param_groups:
            group["lr"].fill_(group["peak"] * factor)
        kept = kept_of_average(state.settings.ema_decay, state.step) if state.step else 0.0
        self.newest.fill_(1 - kept)
        state.step += 1
        if self.device.type != "cuda":
            return self._step(degraded, clean)
        if degraded.shape not in self.recorded:
            self.recorded[degraded.shape] = Recorded((degraded.contiguous(), clean.contiguous()))
        step = self.recorded[degraded.shape]
        for given, here in zip(step.given, (degraded, clean), strict=True):
            given.copy_(here)
        step.seen += 1
        if step.seen <= EAGER:
            return self._step(*step.given)
        if step.seen == EAGER + 1:
            state.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(step.graph):  # records, and computes nothing
                step.told = self._step(*step.given)
        step.graph.replay()
        return step.told

    def _step(self, degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing here waits for the device."""
        state, tasks = self.state, len(self.tasks)
        if self.network._selection.equal_runs != len(degraded) // tasks:  # to look at it waits for the device
            select(self.network._selection, self.tasks.repeat_interleave(len(degraded) // tasks), tasks)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=state.settings.bf16):
            restored = self.forward(degraded)
        frequency_weight = state.settings.frequency_weight
        distances = restoration_loss(restored.float(), clean, frequency_weight).view(tasks, -1)
        errors = sample_errors(distances, frequency_weight).mean(1)  # `task_errors`, without a wait
        if state.task_scale is None:
            state.task_scale = errors.detach().clone()
        loss = balanced_loss(errors, state.task_scale, self.weights)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, state.settings.clip_norm)
        state.task_scale.copy_(running_scale(errors, state.task_scale))
        state.optimizer.step()
        with torch.no_grad():
            change = list(torch._foreach_sub(self.latest, self.averages))
            torch._foreach_mul_(change, self.newest)
            torch._foreach_add_(self.averages, change)
        return distances.detach().mean(1), norm

    def averaged(self) -> TaskNetwork:
        """The network with the averaged weights."""
        return cast("TaskNetwork", self.state.ema.module.eval())


@torch.inference_mode()
def held_out_psnr(network: TaskNetwork, pairs: Tensor) -> list[float]:
    """Mean PSNR (dB) of each task on uint8 pairs (tasks, count, 2, side, side, 3)."""
    told = []
    for task, of_task in enumerate(pairs):
        degraded, clean = of_task.permute(1, 0, 4, 2, 3).float().div(255)
        restored = network(degraded, torch.full((len(degraded),), task, device=pairs.device))
        levels = restored.clamp(0, 1).mul(255).round().div(255)
        told.append(float((-10 * (levels - clean).square().mean((1, 2, 3)).clamp_min(1e-10).log10()).mean()))
    return told


def train(
    trainer: Trainer, pool: Pool, seconds: float, phases: Sequence[Phase], reuse: float, held_out: Tensor, out: Path
) -> None:
    """Train until the seconds are over; the log and the averaged weights are written twenty times.

    A square is used `reuse` times before another takes its place.
    """
    tasks = list(trainer.params.tasks)
    rows: list[dict[str, float]] = []
    started, looked, waited, samples, used = time.perf_counter(), 0, 0.0, 0, 0.0
    while (elapsed := time.perf_counter() - started) < seconds:
        phase = next(phase for phase in phases if elapsed / seconds < phase.until)
        losses, norm = trainer.update(*pool.draw(phase.each, phase.side), elapsed / seconds)
        samples += phase.each * len(tasks)
        used += phase.each / (reuse * pool.pairs.shape[2])
        before = time.perf_counter()
        for _ in range(int(used)):
            pool.renew()
        used -= int(used)
        waited += time.perf_counter() - before
        if int(elapsed / seconds * 20) > looked:
            looked += 1
            if not norm.isfinite():
                raise RuntimeError(f"step {trainer.state.step}: the gradient is no number; lower train.learning_rate")
            network = trainer.averaged()
            told = held_out_psnr(network, held_out)
            psnr = dict(zip(tasks, (round(value, 2) for value in told), strict=True))
            row = {
                "seconds": round(elapsed),
                "step": trainer.state.step,
                "samples": samples,
                "waited": round(waited, 1),
            }
            rows.append(row | {"loss": round(float(losses.mean()), 5)} | psnr)
            print("fresh damage: " + ", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
            pd.DataFrame(rows).to_csv(out / "log.csv", index=False)
            save_model(network, out)
    save_model(trainer.averaged(), out)


def main() -> None:
    """Read the arguments, train, and write the checkpoint into `--out`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh_damage", description=__doc__, formatter_class=raw)
    parser.add_argument("--photographs", type=Path, required=True, help="clean ones to learn from")
    parser.add_argument("--held-out", type=Path, required=True, help="clean ones to measure on")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--choice", type=Path, default=Path("metrics/modulation.json"), help="layers and rank")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--each", type=int, nargs="+", default=[16], help="samples of a task in a step, by phase")
    parser.add_argument("--crop", type=int, nargs="+", default=[128], help="pixels that are learnt from, by phase")
    parser.add_argument("--until", type=float, nargs="+", default=[1.0], help="share of the time, by phase")
    parser.add_argument("--square", type=int, default=192, help="pixels that are damaged")
    parser.add_argument("--reuse", type=float, default=4, help="times a square is used, in different crops")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.0, 0.6, 1.6], help="of the photographs")
    parser.add_argument("--workers", type=int, default=max((torch.get_num_threads() or 2) - 1, 1))
    parser.add_argument("--begin-with", type=Path, help="a checkpoint whose weights are gone on from")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    cv2.setNumThreads(0)  # the processes that damage are forked: threads of the parent's would be missed there
    params = load_params(given.params)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(params.seed)
    pictures, others = (
        read_photographs(folder, given.scales, given.square) for folder in (given.photographs, given.held_out)
    )
    if given.until[-1] != 1:
        parser.error(f"--until: expected 1 as the last, got {given.until}")
    phases = [Phase(*each) for each in zip(given.until, given.each, given.crop, strict=True)]
    blocks = Blocks(pictures, params, max(int(given.each[0] / given.reuse), 1), given.square)
    held_out = Blocks(others, params, 16, given.square)
    pairs = torch.from_numpy(held_out.block(HELD_OUT_SEED)).to(device)
    loader = DataLoader(
        blocks, batch_size=None, num_workers=given.workers, prefetch_factor=4, pin_memory=device.type == "cuda"
    )
    network = TaskNetwork(model_config(params, read_choice(given.choice))).to(device)
    if given.begin_with:
        network = load_checkpoint(TaskNetwork, given.begin_with, device).train()
    given.out.mkdir(parents=True, exist_ok=True)
    if params.train.learn == "biases":
        hold_backbone(network)
    elif params.train.learn != "all":
        parser.error(f"{given.params}.train.learn: expected all or biases, got {params.train.learn}")
    pool = Pool(iter(loader), device, params.seed)
    train(Trainer(network, params, given.compile), pool, given.seconds, phases, given.reuse, pairs, given.out)


if __name__ == "__main__":
    main()
