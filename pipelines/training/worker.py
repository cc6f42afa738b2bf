"""What runs in each Ray Train worker: `ipt.training` on this worker's groups, with logs, validation and checkpoints.

A module of its own, because Ray must be able to import it in other processes (train.py runs as `__main__`).
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import sys
from dataclasses import dataclass
from typing import cast

import torch

from ipt.network.config import ModelConfig
from ipt.network.precision import Precision, uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.training.fit import StepReport, TrainingSettings, fit
from pipelines.cluster.worker import Worker, WorkerSettings, start_worker
from pipelines.common.params import Ingest
from pipelines.data.pairs import read_images
from pipelines.data.row_groups import RowGroup
from pipelines.training.batches import training_batches
from pipelines.training.beginning import Learn, new_network
from pipelines.training.groups import Mix, read_groups
from pipelines.training.stream import Schedule, worker_items
from pipelines.training.validation import validate


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker of the stage `train` needs to know."""

    worker: WorkerSettings
    model: ModelConfig
    training: TrainingSettings  # whose bf16 each worker decides for its device
    precision: Precision
    mix: Mix  # of the tasks that learn
    groups_per_step: int
    groups_per_read: int
    ingest: Ingest
    learn: Learn
    log_every: int
    validate_every: int
    checkpoint_every: int
    learning: tuple[int, ...]  # the number in the model of each task of the mix
    validation: dict[str, list[tuple[RowGroup, int]]]  # rows of each task


def train_worker(config: dict[str, TrainingJob]) -> None:
    """What each Ray Train worker runs, with its `job`; every rank makes the same number of steps and reports."""
    job = config["job"]

    def training(device: torch.device) -> TrainingSettings:
        return dataclasses.replace(job.training, bf16=uses_bf16(job.precision, device))

    worker = start_worker(job.worker, lambda: new_network(job.model, job.learn), training)
    schedule = Schedule(
        steps=job.training.steps,
        items_per_step=job.groups_per_step,
        interval=job.checkpoint_every,
        segment=job.groups_per_read,
        workers=worker.workers,
    )
    weight = schedule.weight(worker.rank)
    read = functools.partial(worker.patience, read_groups, job.mix, job.ingest)
    groups = worker_items(read, schedule, worker.state.step, worker.rank)
    batches = training_batches(groups, [job.learning[number] for number in job.mix.index])
    fit(
        worker.state,
        batches,
        network=worker.network,
        on_step=_Reporter(job, worker, weight),
        conflict_every=job.validate_every,
        weight=weight,
    )
    worker.checkpoints.finish()


class _Reporter:
    """Called after each step: logs, validates and checkpoints at the intervals of the params."""

    def __init__(self, job: TrainingJob, worker: Worker, weight: float) -> None:
        self.job, self.worker, self.weight = job, worker, weight
        self.recent: list[StepReport] = []
        self.begun = False
        self.tasks = [job.model.tasks[number] for number in job.learning]
        rows = job.validation if worker.rank == 0 else {}
        self.validation = {task: worker.patience(read_images, each) for task, each in rows.items()}

    def __call__(self, report: StepReport) -> None:
        worker, job = self.worker, self.job
        first = worker.rank == 0
        if first and not self.begun:
            self.begun = True
            before = worker.checkpoints.begin(report.step - 1, report.step_seconds - report.wait_seconds)
            worker.log({"restarts": before, "workers": worker.workers})
        self.recent.append(report)
        last = report.step == job.training.steps
        if report.step % job.log_every == 0 or last:
            self.log()
        if first and (report.step % job.validate_every == 0 or last):
            averaged = cast("TaskNetwork", worker.state.ema.module)  # what train_worker had made
            scores = validate(averaged, self.validation)
            worker.checkpoints.history.validations.append({"step": report.step} | scores)
            worker.log({f"val_psnr/{task}": score for task, score in scores.items()})
        if report.step % job.checkpoint_every == 0 or last:
            worker.checkpoints.write()

    def log(self) -> None:
        """Average the steps since the last call over all workers and note the row."""
        reports, worker = self.recent, self.worker
        means = torch.tensor([[r.loss, *r.task_loss, r.gradient_norm] for r in reports], dtype=torch.float64).mean(0)
        means[:-1] *= self.weight  # the norm is that of all workers' mean gradient
        sums = [sum(getattr(r, name) for r in reports) for name in ("samples", "step_seconds", "wait_seconds")]
        own = torch.tensor([*sums, memory_gib()], dtype=torch.float64)
        table = gathered(torch.cat([means, own]), worker.device)
        loss, *task_loss, norm = table[:, : len(means)].mean(0).tolist()
        samples, seconds, wait, memory = table[:, len(means) :].T
        values = (
            {"loss": loss}
            | {f"loss/{task}": value for task, value in zip(self.tasks, task_loss, strict=True)}
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
        worker.checkpoints.history.steps.append({"step": worker.state.step} | values)
        columns = {"samples_per_second": samples / seconds, "wait_share": wait / seconds, "memory_gib": memory}
        by_worker = {
            f"worker-{number}/{name}": value
            for name, column in columns.items()
            for number, value in enumerate(column.tolist())
        }
        worker.log(values | by_worker)


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
