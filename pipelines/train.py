"""Stage: shards to a trained model, by Ray Train workers around `ipt.training`.

A run is named by a hash of its params and data and keeps its checkpoints in `ray.storage` until the model is
written: the same command after a kill continues it, after a finished run it starts anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device, prepare_model

from ipt.checkpoint import save_model
from ipt.config import ModelConfig, preset_config
from ipt.instruction import train_instructions
from ipt.model import InstructIPT
from ipt.training import TrainingSettings, TrainingState, fit, has_bf16
from pipelines.cluster import connected, resources
from pipelines.files import replace_file, replace_folder, write_json
from pipelines.ingest import SEGMENT, Mix, group_dataset, open_mix, training_batches
from pipelines.params import Params, load_params
from pipelines.progress import History, Progress
from pipelines.tracking import LiveRun
from pipelines.validate import load_validation, validate

SHARDS, TRAINED = Path("data/shards"), Path("models/trained")
METRICS, LOSS_PLOT, VALIDATION_PLOT = Path("metrics/train.json"), Path("plots/loss.csv"), Path("plots/validation.csv")


def train(params: Params, shards: Path, target: Path) -> History:
    """Train on the shards of the tasks in `params`, write the checkpoint folder `target` and return the history."""
    remove_stale_shards(shards, list(params.tasks))
    mix = open_mix(shards, params.tasks, "train", params.seed)
    name = run_name(params, shards)
    storage = Path(params.ray.storage).resolve()
    config = worker_config(params, mix, shards, storage / name)
    scaling = resources(params.ray)
    with LiveRun(params, name) as live, Progress(params.train.steps, live.log) as progress:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config=config | {"progress": progress.queue},
            scaling_config=scaling,
            run_config=ray.train.RunConfig(
                name=name, storage_path=str(storage),
                failure_config=ray.train.FailureConfig(max_failures=params.ray.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2)),
            # Called at each start of the workers: after a failure the stream begins where training goes on.
            datasets={"train": lambda: remaining_groups(params, mix, storage / name)},
        )
        result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        history = History.read(Path(folder))
        model = finished_model(params, Path(folder))
    with replace_folder(target) as folder:
        save_model(model, folder)
        write_json(folder / "run.json", {"name": name, "mlflow_run": live.run_id})
    shutil.rmtree(storage / name)  # the model is written: a forced rerun starts anew
    return history


def worker_config(params: Params, mix: Mix, shards: Path, run: Path) -> dict:
    """All that a worker needs, as plain values."""
    settings = {name: value for name, value in dataclasses.asdict(params.train).items()
                if name in {field.name for field in dataclasses.fields(TrainingSettings)}}
    model = preset_config(params.model.preset, tuple(params.tasks), params.modulation.rank, params.modulation.layers)
    return {
        "model": model.to_dict(), "settings": settings, "precision": params.train.precision, "seed": params.seed,
        "index": mix.index, "groups_per_step": params.train.groups_per_step, "ingest": dataclasses.asdict(params.ingest),
        "log_every": params.train.log_every, "validate_every": params.train.validate_every,
        "checkpoint_every": params.train.checkpoint_every, "validate_tiles": params.train.validate_tiles,
        "shards": str(shards.resolve()), "run": str(run), "threads": resources(params.ray).resources_per_worker["CPU"],
    }


def train_worker(config: dict) -> None:
    """What each Ray Train worker runs; every rank makes the same number of steps and reports."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(int(config["threads"]))
    torch.manual_seed(config["seed"])
    device = get_device()
    bf16 = config["precision"] == "bf16" or (config["precision"] == "auto" and has_bf16(device))
    model = InstructIPT(ModelConfig.from_dict(config["model"]))
    model.instruction.requires_grad_(False)  # trained apart, from sentences
    network = prepare_model(model)
    state = TrainingState(model, TrainingSettings(bf16=bf16, **config["settings"]))
    history = History()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            state.load(Path(folder))
            history = History.read(Path(folder))
    reporter = _Reporter(config, state, history, rank)
    batches = training_batches(
        _tables(state.step, config["groups_per_step"], workers), config["index"], config["ingest"]["crop"],
        config["seed"], threads=config["ingest"]["decode_threads"], prefetch=config["ingest"]["prefetch_steps"])
    fit(state, batches, network=network, on_step=reporter)
    if not history.finished:  # resumed after the last step: nothing was reported in this life
        reporter.checkpoint()


def _tables(step: int, groups_per_step: int, workers: int):
    """This worker's groups from `step` on, a table a step."""
    share, rest = divmod(groups_per_step, workers)
    if rest:
        raise ValueError(f"params.yaml.train.groups_per_step: expected a multiple of ray.workers = {workers}, "
                         f"got {groups_per_step}")
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
        self.recent: list = []
        self.validation = load_validation(Path(config["shards"]), state.model.config.tasks,
                                          config["validate_tiles"]) if rank == 0 else None

    def __call__(self, report) -> None:
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
        row = torch.tensor([[r.loss, *r.task_loss, r.gradient_norm, r.samples, r.step_seconds, r.wait_seconds]
                            for r in self.recent], dtype=torch.float64).mean(0)
        workers = 1
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            workers = torch.distributed.get_world_size()
            row = row.to(next(self.state.model.parameters()).device)
            torch.distributed.all_reduce(row)
            row = row.cpu() / workers
        loss, *rest = row.tolist()
        task_loss, (norm, samples, seconds, wait) = rest[: len(tasks)], rest[len(tasks) :]
        values = {"loss": loss} | {f"loss/{task}": value for task, value in zip(tasks, task_loss, strict=True)} | {
            "gradient_norm": norm, "learning_rate": self.recent[-1].learning_rate,
            "samples_per_second": workers * samples / seconds, "step_seconds": seconds, "wait_share": wait / seconds}
        self.recent.clear()
        self.history.steps.append({"step": self.state.step} | values)
        self._send(values)

    def checkpoint(self) -> None:
        """Report the whole state; a barrier for all workers."""
        step = self.state.step
        if self.rank != 0:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            self.state.save(Path(folder))
            self.history.finished = step == self.state.settings.steps
            self.history.write(Path(folder))
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
        write_json(Path(self.config["run"]) / "position.json", {"step": step})

    def _send(self, values: dict[str, float]) -> None:
        if self.rank == 0:
            self.config["progress"].put({"step": self.state.step} | values)


def remaining_groups(params: Params, mix: Mix, run: Path) -> ray.data.Dataset:
    """The groups from the run's last checkpoint (or the start) to its last step."""
    position = run / "position.json"
    step = json.loads(position.read_text())["step"] if position.is_file() else 0
    per_step, steps = params.train.groups_per_step, params.train.steps
    # A run that ended just before its model was written still needs a stream to open.
    return group_dataset(mix, min(step, steps - 1) * per_step, steps * per_step, SEGMENT)


def finished_model(params: Params, checkpoint: Path) -> InstructIPT:
    """The averaged weights of a training checkpoint with the reader of instructions trained beside them."""
    model = preset_config(params.model.preset, tuple(params.tasks), params.modulation.rank, params.modulation.layers)
    from ipt.checkpoint import load_weights

    trained = InstructIPT(model)
    load_weights(trained, checkpoint / "ema.safetensors")
    train_instructions(trained.instruction, [task.instructions for task in params.tasks.values()])
    return trained.eval()


def run_name(params: Params, shards: Path) -> str:
    """A name that is the same for the same params and data: `train-` and a hash."""
    blocks = {name: dataclasses.asdict(getattr(params, name)) for name in ("ingest", "model", "modulation", "train")}
    digest = hashlib.sha256(json.dumps([params.seed, blocks, [[n, t.share] for n, t in params.tasks.items()]]).encode())
    for task in params.tasks:
        for path in sorted((shards / task).rglob("*.parquet")):
            with path.open("rb") as file:
                digest.update(f"{path.relative_to(shards)}".encode() + hashlib.file_digest(file, "sha256").digest())
    return f"train-{digest.hexdigest()[:12]}"


def remove_stale_shards(shards: Path, tasks: list[str]) -> None:
    """Remove folders of tasks that are no longer in params.yaml, so that the data hash is that of the tasks listed.

    They stay in DVC's cache: putting the task back restores them.
    """
    for folder in sorted(shards.iterdir()):
        if folder.is_dir() and folder.name not in tasks and not folder.name.startswith("."):
            print(f"{folder}: the task is no longer in params.yaml; shards removed (DVC's cache keeps them)")
            shutil.rmtree(folder)


def write_history(history: History, seconds: float) -> None:
    """Write the curves as CSV and the summary as JSON."""
    steps, validations = pd.DataFrame(history.steps), pd.DataFrame(history.validations)
    for path, table in ((LOSS_PLOT, steps), (VALIDATION_PLOT, validations)):
        with replace_file(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    last = {name: value for name, value in history.validations[-1].items() if name != "step"}
    write_json(METRICS, {
        "loss": history.steps[-1]["loss"],
        "val_psnr": {task: round(value, 2) for task, value in last.items()},
        "samples_per_second": round(steps["samples_per_second"].median(), 2),
        "wait_share": round(float(steps["wait_share"].iloc[1:].mean()), 4),
        "seconds": round(seconds, 1),
    })


def main() -> None:
    """Read params.yaml, train and write model, curves and summary."""
    import time

    started = time.perf_counter()
    params = load_params()
    with connected(params.ray):
        history = train(params, SHARDS, TRAINED)
    write_history(history, time.perf_counter() - started)
    print(f"train: model in {TRAINED}, curves in {LOSS_PLOT} and {VALIDATION_PLOT} (dvc plots show), summary in {METRICS}")


if __name__ == "__main__":
    main()
