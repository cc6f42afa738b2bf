"""Stage: shards to a trained model, by Ray Train workers around `ipt.training`.

A run is named by a hash of its params and data and keeps its checkpoints in `ray.storage` until the model is
written: the same command after a kill continues it, after a finished run it starts anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path

import pandas as pd
import ray.train
from ray.train.torch import TorchTrainer

from ipt.checkpoint import load_weights, save_model
from ipt.config import ModelConfig
from ipt.model import InstructIPT
from pipelines.choice import Choice, model_config, read_choice, training_settings
from pipelines.cluster import connected, cpus_per_worker
from pipelines.files import replace_file, replace_folder, write_json
from pipelines.ingest import SEGMENT, Mix, group_dataset, open_mix
from pipelines.params import Params, load_params
from pipelines.paths import LOSS_PLOT, METRICS, SHARDS, TRAINED, VALIDATION_PLOT
from pipelines.progress import History, Progress
from pipelines.stage import run
from pipelines.tracking import LiveRun
from pipelines.train_worker import train_worker
from pipelines.workers import position, resources

SUMMARY = METRICS / "train.json"


def train(params: Params, choice: Choice, shards: Path, target: Path) -> History:
    """Train on the shards of the tasks in `params`, write the checkpoint folder `target` and return the history."""
    remove_stale_shards(shards, list(params.tasks))
    mix = open_mix(shards, params.tasks, "train", params.seed)
    name = run_name(params, choice, shards)
    storage = Path(params.ray.storage).resolve()
    model = model_config(params, choice)
    config = worker_config(params, model, mix, shards, storage / name)
    if step := position(storage / name):
        print(f"train: {name} continues from step {step} of {params.train.steps}", flush=True)
    scaling = resources(params.ray)
    with LiveRun(params, name) as live, Progress(params.train.steps, live.log) as progress:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config=config | {"progress": progress.queue},
            scaling_config=scaling,
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=ray.train.FailureConfig(max_failures=params.ray.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            ),
            # Called at each start of the workers: after a failure the stream begins where training goes on.
            datasets={"train": lambda: remaining_groups(params, mix, storage / name)},
        )
        result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        history = History.read(Path(folder))
        trained = finished_model(model, Path(folder))
    with replace_folder(target) as folder:
        save_model(trained, folder)
        write_json(folder / "run.json", {"name": name, "mlflow_run": live.run_id})
    shutil.rmtree(storage / name)  # the model is written: a forced rerun starts anew
    return history


def worker_config(params: Params, model: ModelConfig, mix: Mix, shards: Path, run: Path) -> dict:
    """All that a worker needs, as plain values."""
    return {
        "model": model.to_dict(),
        "settings": dataclasses.asdict(training_settings(params, params.train.steps, bf16=False)),
        "precision": params.train.precision,
        "seed": params.seed,
        "index": mix.index,
        "groups_per_step": params.train.groups_per_step,
        "ingest": dataclasses.asdict(params.ingest),
        "log_every": params.train.log_every,
        "validate_every": params.train.validate_every,
        "checkpoint_every": params.train.checkpoint_every,
        "validate_tiles": params.train.validate_tiles,
        "shards": str(shards.resolve()),
        "run": str(run),
        "threads": cpus_per_worker(params.ray),
    }


def remaining_groups(params: Params, mix: Mix, run: Path) -> ray.data.Dataset:
    """The groups from the run's last checkpoint (or the start) to its last step."""
    step = position(run)
    per_step, steps = params.train.groups_per_step, params.train.steps
    # A run that ended just before its model was written still needs a stream to open.
    return group_dataset(mix, min(step, steps - 1) * per_step, steps * per_step, SEGMENT)


def finished_model(config: ModelConfig, checkpoint: Path) -> InstructIPT:
    """The averaged weights of a training checkpoint; what reads instructions and pictures is put in by `compress`."""
    trained = InstructIPT(config)
    load_weights(trained, checkpoint / "ema.safetensors")
    return trained.eval()


def run_name(params: Params, choice: Choice, shards: Path) -> str:
    """A name that is the same for the same params, choice and data: `train-` and a hash."""
    blocks = {name: dataclasses.asdict(getattr(params, name)) for name in ("ingest", "model", "train")}
    blocks["modulation"] = dataclasses.asdict(choice)
    tasks = [[name, task.share, task.weight] for name, task in params.tasks.items()]
    digest = hashlib.sha256(json.dumps([params.seed, blocks, tasks]).encode())
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
    steps = pd.DataFrame(history.steps)
    validations = pd.DataFrame(history.validations).melt("step", var_name="task", value_name="psnr")
    for path, table in ((LOSS_PLOT, steps), (VALIDATION_PLOT, validations)):
        with replace_file(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    last = {name: value for name, value in history.validations[-1].items() if name != "step"}
    write_json(
        SUMMARY,
        {
            "loss": history.steps[-1]["loss"],
            "val_psnr": {task: round(value, 2) for task, value in last.items()},
            "samples_per_second": round(steps["samples_per_second"].median(), 2),
            "wait_share": round(float(steps["wait_share"].iloc[1:].mean()), 4),
            "seconds": round(seconds, 1),
        },
    )


def main() -> None:
    """Read params.yaml, train and write model, curves and summary."""
    started = time.perf_counter()
    params = load_params()
    with connected():
        history = train(params, read_choice(), SHARDS, TRAINED)
    write_history(history, time.perf_counter() - started)
    print(
        f"train: model in {TRAINED}, curves in {LOSS_PLOT} and {VALIDATION_PLOT} (dvc plots show), summary in {SUMMARY}"
    )


if __name__ == "__main__":
    run(main)
