"""Stage: shards to a trained model, by Ray Train workers around `ipt.training.fit`.

    python -m pipelines.train [--decay]

A run is named by a hash of its params and data and keeps its checkpoints in `ray.storage` until the model is
written: the same command after a kill continues it, after a finished run it starts anew. With `--decay` a copy of its
last checkpoint is trained to the end as `decay` of params.yaml says, and the run itself can go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path

import pandas as pd

from ipt.files import replace_file
from ipt.network.checkpoint import save_model
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.pretrained import pretrained_network
from ipt.weights import load_weights
from pipelines.cluster.checkpoints import latest_checkpoint, read_lives
from pipelines.cluster.connection import connected
from pipelines.cluster.naming import published
from pipelines.cluster.progress import History, faults
from pipelines.cluster.storage import Storage, content_hash
from pipelines.cluster.worker import WorkerSettings
from pipelines.cluster.workers import FORMAT, run_workers
from pipelines.common.files import replace_folder, write_json
from pipelines.common.lock import data_hashes
from pipelines.common.manifest import has_manifest
from pipelines.common.params import Params, ParamsError, Task, load_params
from pipelines.common.paths import LOSS_PLOT, METRICS, SHARDS, TRAINED, VALIDATION_PLOT
from pipelines.common.stage import command, run
from pipelines.data.pairs import spread_rows
from pipelines.tracking.live_run import LiveRun
from pipelines.training.beginning import START, begin, begun_with, weights_hash
from pipelines.training.choice import Choice, model_config, read_choice, training_settings
from pipelines.training.groups import open_mix
from pipelines.training.worker import TrainingJob, train_worker

SUMMARY = METRICS / "train.json"
DECAY = "-decay-"  # in the name of a run, between that which it ends and the step where it begins


def train(
    params: Params, choice: Choice, shards: Path, target: Path, decay: bool = False
) -> tuple[str, History, dict[str, float]]:
    """Train on the shards of the tasks in `params` and write the checkpoint folder `target`.

    With `decay`, from the last checkpoint of the run on, as `params.decay` says; the run stays. Returns the name
    of the run, which is for the caller to remove from the storage when all is written, the history, and what faults
    cost.
    """
    remove_stale_shards(shards, list(params.tasks))
    storage = Storage(params.ray.storage)
    places = {task: published(storage, shards / task) for task in params.tasks}
    source = params.train.begin_with
    given = None if source is None else pretrained_network(source)
    name = run_name(params, choice, shards, given)
    if decay:
        name, first = begin_decay(storage, name)
        params = decaying(params, first)
    model = model_config(params, choice)
    start = f"{name}/{START}" if decay else None
    if given is not None and not decay:
        settings = training_settings(params, params.train.steps, bf16=False)
        start = begin(storage, name, begun_with(given, model, params.train.learn), settings)
    with LiveRun(params, name) as live:
        result = run_workers(
            train_worker,
            lambda worker: training_job(params, model, shards, places, worker),
            params,
            storage,
            stage="train",
            run=name,
            steps=params.train.steps,
            log=live.log,
            start=start,
        )
    with result.checkpoint.as_directory() as folder:
        history = History.read(Path(folder))
        trained = finished_model(model, Path(folder))
    with replace_folder(target) as folder:
        save_model(trained, folder)
        write_json(folder / "run.json", {"name": name, "mlflow_run": live.run_id})
    return name, history, faults(read_lives(storage, name), history)


def begin_decay(storage: Storage, run: str) -> tuple[str, int]:
    """The name of the run that finishes a copy of `run`, and the step where it begins.

    One that was stopped half-way goes on. Raises FileNotFoundError where `run` has no checkpoint.
    """
    for name in storage.folders():
        if name.startswith(f"{run}{DECAY}") and storage.read_json(f"{name}/{START}.json"):
            return name, int(name.removeprefix(f"{run}{DECAY}"))
    latest = latest_checkpoint(storage, run)
    if latest is None:
        raise FileNotFoundError(
            f"{storage.place}/{run}: no checkpoint of a run with these params and data; begin it: dvc repro train"
        )
    name = f"{run}{DECAY}{latest.step}"
    storage.copy(latest.folder, f"{name}/{START}")
    storage.write_json(f"{name}/{START}.json", {"from": latest.folder})  # last: the copy is whole
    return name, latest.step


def decaying(params: Params, first: int) -> Params:
    """The params of a run's end that begins after step `first`."""
    settings = params.decay
    train_to_the_end = dataclasses.replace(
        params.train,
        steps=first + settings.steps,
        decay_steps=settings.steps,
        groups_per_step=settings.groups_per_step,
    )
    return dataclasses.replace(
        params,
        train=train_to_the_end,
        ingest=dataclasses.replace(params.ingest, crop=settings.crop),
    )


def training_job(
    params: Params, model: ModelConfig, shards: Path, places: dict[str, str], worker: WorkerSettings
) -> TrainingJob:
    """What the workers need; `places` is where the shards of each task are read."""
    settings = params.train
    learning = learning_tasks(params)
    training = training_settings(params, settings.steps, bf16=False)
    return TrainingJob(
        worker=worker,
        model=model,
        training=dataclasses.replace(training, samples_at_once=samples_at_once(params)),
        precision=settings.precision,
        mix=open_mix(shards, learning, "train", params.seed, places),
        learning=tuple(model.tasks.index(task) for task in learning),
        groups_per_step=settings.groups_per_step,
        groups_per_read=params.ray.groups_per_read,
        ingest=params.ingest,
        learn=settings.learn,
        log_every=settings.log_every,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
        validation={
            task: spread_rows(shards / task / "val", settings.validate_tiles, place) for task, place in places.items()
        },
    )


def learning_tasks(params: Params) -> dict[str, Task]:
    """The tasks of the table whose samples the training sees."""
    if isinstance(params.train.learn, str):
        return params.tasks
    return {name: task for name, task in params.tasks.items() if name in params.train.learn}


def samples_at_once(params: Params) -> int | None:
    """How many samples of a worker go through the network together, None for all of a step's.

    Raises ParamsError where that are fewer than one of each task that learns.
    """
    most, fewest = params.ray.samples_at_once, len(learning_tasks(params))
    if most == "all":
        return None
    if most < fewest:
        raise ParamsError(
            f"params.yaml.ray.samples_at_once: expected all, or {fewest} or more, one for each task, got {most}"
        )
    return most


def finished_model(config: ModelConfig, checkpoint: Path) -> TaskNetwork:
    """The averaged weights of a training checkpoint."""
    trained = TaskNetwork(config)
    load_weights(trained, checkpoint / "ema.safetensors")
    return trained.eval()


def run_name(params: Params, choice: Choice, shards: Path, given: TaskNetwork | None = None) -> str:
    """A name that is the same for the same params, choice and data: `train-` and a hash."""
    blocks = {name: dataclasses.asdict(getattr(params, name)) for name in ("ingest", "model", "train")}
    blocks["modulation"] = dataclasses.asdict(choice)
    tasks = [[name, task.share, task.weight] for name, task in params.tasks.items()]
    data = {task: content_hash(shards / task) for task in params.tasks}
    if given is not None:
        blocks["train"]["begin_with"] = weights_hash(given)
    digest = hashlib.sha256(json.dumps([FORMAT, params.seed, blocks, tasks, data]).encode())
    return f"train-{digest.hexdigest()[:12]}"


def remove_stale_shards(shards: Path, tasks: list[str]) -> None:
    """Remove shards of tasks that are no longer in params.yaml, so that the data hash is that of the tasks listed.

    They stay in DVC's cache, or in the storage what their manifest names: putting the task back restores them. A folder
    that dvc.lock does not know is not DVC's and stays.
    """
    for folder in sorted(shards.iterdir()):
        if not folder.is_dir() or folder.name in tasks or folder.name.startswith("."):
            continue
        if folder.as_posix() in data_hashes():
            kept = "the storage keeps the shards" if has_manifest(folder) else "DVC's cache keeps them"
            print(f"{folder}: the task is no longer in params.yaml; shards removed ({kept})")
            shutil.rmtree(folder)
        else:
            print(f"{folder}: no task of params.yaml, and not in dvc.lock; left there, and not trained on")


def write_history(history: History, cost: dict[str, float], seconds: float) -> None:
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
        }
        | cost,
    )


def main() -> None:
    """Read params.yaml, train and write model, curves and summary."""
    parser = argparse.ArgumentParser(prog=command(), description=__doc__.splitlines()[0])
    parser.add_argument("--decay", action="store_true", help="a finished model out of a run that goes on")
    decay = parser.parse_args().decay
    started = time.perf_counter()
    params = load_params()
    with connected():
        name, history, cost = train(params, read_choice(), SHARDS, TRAINED, decay)
    write_history(history, cost, time.perf_counter() - started)
    Storage(params.ray.storage).remove(name)  # all is written: a forced rerun starts anew
    if cost["restarts"]:
        lost, goodput = cost["seconds_lost"], cost["goodput"]
        print(f"train: began again {cost['restarts']} times, {lost:.0f} s lost to faults, goodput {goodput:.1%}")
    print(
        f"train: model in {TRAINED}, curves in {LOSS_PLOT} and {VALIDATION_PLOT} (dvc plots show), summary in {SUMMARY}"
    )


if __name__ == "__main__":
    run(main)
