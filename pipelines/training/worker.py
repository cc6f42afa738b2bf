"""What runs in each Ray Train worker: `ipt.training` on this worker's groups, with logs, validation and checkpoints.

A module of its own, because Ray must be able to import it in other processes (train.py runs as `__main__`).
"""

from __future__ import annotations

import functools
import resource
import sys
from collections.abc import Callable
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from ipt.model import InstructIPT
from ipt.network.config import ModelConfig
from ipt.training.fit import StepReport, TrainingSettings, TrainingState, fit, uses_bf16
from pipelines.cluster.checkpoints import Checkpoints
from pipelines.cluster.storage import Patience, Storage
from pipelines.data.pairs import read_pairs, validate
from pipelines.training.batches import training_batches
from pipelines.training.groups import read_groups
from pipelines.training.stream import Split, parts


def train_worker(config: dict) -> None:
    """What each Ray Train worker runs; every rank makes the same number of steps and reports."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(int(config["threads"]))
    torch.manual_seed(config["seed"])
    device = get_device()
    bf16 = uses_bf16(config["precision"], device)
    model = InstructIPT(ModelConfig.from_dict(config["model"]))
    network = prepare_model(model)
    settings = TrainingSettings(**config["settings"] | {"bf16": bf16})
    state = TrainingState(model, settings)
    send = config["progress"].put
    storage = Storage(config["storage"])
    patience = Patience(storage.place, config["storage_patience"], lambda text: send({"tell": text}))
    checkpoints = Checkpoints(state, storage, config["run"], patience)
    checkpoints.restore()
    if rank == 0 and state.step:
        send({"tell": f"continues from step {state.step} of {settings.steps}, workers: {workers}"})
    split = Split(
        steps=settings.steps,
        items_per_step=config["groups_per_step"],
        interval=config["checkpoint_every"],
        segment=config["groups_per_read"],
        workers=workers,
    )
    batches = training_batches(
        parts(functools.partial(patience, read_groups, config["mix"]), split, state.step, rank),
        config["mix"].index,
        config["ingest"]["crop"],
        config["seed"],
        left_alone=config["ingest"]["left_alone"],
        threads=config["ingest"]["decode_threads"],
        prefetch=config["ingest"]["prefetch_steps"],
    )
    reporter = _Reporter(config, checkpoints, rank, split.weight(rank), send)
    conflict_every = config["validate_every"]
    fit(state, batches, network=network, on_step=reporter, conflict_every=conflict_every, part=split.weight(rank))
    if checkpoints.written != state.step:  # continued after the last step: nothing was reported in this life
        checkpoints.write()


class _Reporter:
    """Called after each step: logs, validates and checkpoints at the intervals of the params."""

    def __init__(
        self, config: dict, checkpoints: Checkpoints, rank: int, part: float, send: Callable[[dict[str, Any]], None]
    ) -> None:
        self.config, self.checkpoints, self.rank, self.part, self.send = config, checkpoints, rank, part, send
        self.state = checkpoints.state
        self.recent: list[StepReport] = []
        self.begun = False
        rows = config["validation"] if rank == 0 else {}
        self.validation = {task: checkpoints.patience(read_pairs, each) for task, each in rows.items()}

    def __call__(self, report: StepReport) -> None:
        if self.rank == 0 and not self.begun:
            self.begun = True
            before = self.checkpoints.begin(report.step - 1, report.step_seconds - report.wait_seconds)
            workers = ray.train.get_context().get_world_size()
            self.send({"step": report.step, "restarts": before, "workers": workers})
        self.recent.append(report)
        last = report.step == self.state.settings.steps
        if report.step % self.config["log_every"] == 0 or last:
            self.log()
        if (report.step % self.config["validate_every"] == 0 or last) and self.rank == 0:
            scores = validate(self.state.ema.module, self.validation)
            self.checkpoints.history.validations.append({"step": report.step} | scores)
            self._send({f"val_psnr/{task}": score for task, score in scores.items()})
        if report.step % self.config["checkpoint_every"] == 0 or last:
            self.checkpoints.write()

    def log(self) -> None:
        """Average the steps since the last call over all workers and note the row."""
        reports, tasks = self.recent, self.state.model.config.tasks
        means = torch.tensor([[r.loss, *r.task_loss, r.gradient_norm] for r in reports], dtype=torch.float64).mean(0)
        means[:-1] *= self.part  # the norm is that of all workers' mean gradient
        own = torch.tensor(
            [sum(getattr(r, name) for r in reports) for name in ("samples", "step_seconds", "wait_seconds")]
            + [memory_gib()],
            dtype=torch.float64,
        )
        table = gathered(torch.cat([means, own]), next(self.state.model.parameters()).device)
        loss, *task_loss, norm = table[:, : len(means)].mean(0).tolist()
        samples, seconds, wait, memory = table[:, len(means) :].T
        values = (
            {"loss": loss}
            | {f"loss/{task}": value for task, value in zip(tasks, task_loss, strict=True)}
            | {
                "gradient_norm": norm,
                "learning_rate": reports[-1].learning_rate,
                "samples_per_second": (samples / seconds).sum().item(),
                "step_seconds": seconds.mean().item() / len(reports),
                "wait_share": (wait / seconds).mean().item(),
            }
        )
        conflicts = [r.gradient_conflict for r in reports if r.gradient_conflict is not None]
        if conflicts:  # of this worker's batches
            values["gradient_conflict"] = sum(conflicts) / len(conflicts)
        self.recent.clear()
        self.checkpoints.history.steps.append({"step": self.state.step} | values)
        columns = {"samples_per_second": samples / seconds, "wait_share": wait / seconds, "memory_gib": memory}
        by_worker = {
            f"worker-{worker}/{name}": value
            for name, column in columns.items()
            for worker, value in enumerate(column.tolist())
        }
        self._send(values | by_worker)

    def _send(self, values: dict[str, float]) -> None:
        if self.rank == 0:
            self.send({"step": self.state.step} | values)


def gathered(row: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The rows (N,) of all workers, (workers, N)."""
    if not torch.distributed.is_initialized():
        return row[None]
    rows = [torch.empty_like(row, device=device) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(rows, row.to(device))
    return torch.stack(rows).cpu()


def memory_gib() -> float:
    """The most memory that this process has held so far: of its GPU, or resident where it has none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
