"""What runs in each Ray Train worker: `ipt.training` on this worker's groups, with logs, validation and checkpoints.

A module of its own, because Ray must be able to import it in other processes (train.py runs as `__main__`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from ipt.config import ModelConfig
from ipt.model import InstructIPT
from ipt.training import StepReport, TrainingSettings, TrainingState, fit, uses_bf16
from pipelines.batches import training_batches
from pipelines.files import write_json
from pipelines.progress import History
from pipelines.validate import load_validation, validate


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
    state = TrainingState(model, TrainingSettings(**config["settings"] | {"bf16": bf16}))
    history = History()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            state.load(Path(folder))
            history = History.read(Path(folder))
    reporter = _Reporter(config, state, history, rank)
    batches = training_batches(
        _tables(state.step, config["groups_per_step"], workers),
        config["index"],
        config["ingest"]["crop"],
        config["seed"],
        left_alone=config["ingest"]["left_alone"],
        threads=config["ingest"]["decode_threads"],
        prefetch=config["ingest"]["prefetch_steps"],
    )
    fit(state, batches, network=network, on_step=reporter, conflict_every=config["validate_every"])
    if reporter.reported != state.step:  # continued after the last step: nothing was reported in this life
        reporter.checkpoint()


def _tables(step: int, groups_per_step: int, workers: int) -> Iterator[pa.Table]:
    """This worker's groups from `step` on, a table a step."""
    share, rest = divmod(groups_per_step, workers)
    if rest:
        raise ValueError(
            f"params.yaml.train.groups_per_step: expected a multiple of ray.workers = {workers}, got {groups_per_step}"
        )
    shard = ray.train.get_dataset_shard("train")
    tables = shard.iter_batches(batch_size=share, batch_format="pyarrow", prefetch_batches=8, drop_last=True)
    for number, table in enumerate(tables):
        # The stream may begin at an earlier checkpoint than the one loaded; `start` says where.
        if table["start"][0].as_py() + number * groups_per_step >= step * groups_per_step:
            yield table


class _Reporter:
    """Called after each step: logs, validates and checkpoints at the intervals of the params."""

    def __init__(self, config: dict, state: TrainingState, history: History, rank: int) -> None:
        self.config, self.state, self.history, self.rank = config, state, history, rank
        self.recent: list[StepReport] = []
        self.reported = 0  # step of the last checkpoint
        self.validation = (
            load_validation(Path(config["shards"]), state.model.config.tasks, config["validate_tiles"])
            if rank == 0
            else None
        )

    def __call__(self, report: StepReport) -> None:
        self.recent.append(report)
        last = report.step == self.state.settings.steps
        if report.step % self.config["log_every"] == 0 or last:
            self.log()
        if (report.step % self.config["validate_every"] == 0 or last) and self.rank == 0:
            scores = validate(self.state.ema.module, self.validation)
            self.history.validations.append({"step": report.step} | scores)
            self._send({f"val_psnr/{task}": score for task, score in scores.items()})
        if report.step % self.config["checkpoint_every"] == 0 or last:
            self.checkpoint()

    def log(self) -> None:
        """Average the steps since the last call over all workers and note the row."""
        tasks = self.state.model.config.tasks
        row = torch.tensor(
            [[r.loss, *r.task_loss, r.gradient_norm, r.samples, r.step_seconds, r.wait_seconds] for r in self.recent],
            dtype=torch.float64,
        ).mean(0)
        workers = 1
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            workers = torch.distributed.get_world_size()
            row = row.to(next(self.state.model.parameters()).device)
            torch.distributed.all_reduce(row)
            row = row.cpu() / workers
        loss, *rest = row.tolist()
        task_loss, (norm, samples, seconds, wait) = rest[: len(tasks)], rest[len(tasks) :]
        values = (
            {"loss": loss}
            | {f"loss/{task}": value for task, value in zip(tasks, task_loss, strict=True)}
            | {
                "gradient_norm": norm,
                "learning_rate": self.recent[-1].learning_rate,
                "samples_per_second": workers * samples / seconds,
                "step_seconds": seconds,
                "wait_share": wait / seconds,
            }
        )
        conflicts = [r.gradient_conflict for r in self.recent if r.gradient_conflict is not None]
        if conflicts:  # of this worker's batches
            values["gradient_conflict"] = sum(conflicts) / len(conflicts)
        self.recent.clear()
        self.history.steps.append({"step": self.state.step} | values)
        self._send(values)

    def checkpoint(self) -> None:
        """Report the whole state; a barrier for all workers."""
        step = self.reported = self.state.step
        if self.rank != 0:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            self.state.save(Path(folder))
            self.history.write(Path(folder))
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
        write_json(Path(self.config["run"]) / "position.json", {"step": step})

    def _send(self, values: dict[str, float]) -> None:
        if self.rank == 0:
            self.config["progress"].put({"step": self.state.step} | values)
