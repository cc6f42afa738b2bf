"""What stages that train share on the driver's side: how many workers of what size, and what happens when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer

from pipelines.cluster.connection import cpus_per_worker, worker_range
from pipelines.cluster.progress import Progress
from pipelines.cluster.storage import Storage
from pipelines.cluster.worker import WorkerSettings
from pipelines.common.params import Params, Ray
from pipelines.common.stage import of_data, reason

REQUEST = "request.json"  # in the run's folder: under which name its driver asks the autoscaler for workers
FORMAT_FILE, FORMAT = "format.json", 2  # in the run's folder: which code can go on with it
COORDINATOR = "AutoscalingCoordinator"  # name and namespace of the actor of Ray that keeps such requests


def run_workers(
    function: Callable[[dict[str, Any]], None],
    job: Callable[[WorkerSettings], Any],
    params: Params,
    storage: Storage,
    *,
    stage: str,
    run: str,
    steps: int,
    log: Callable[[int, dict[str, float]], None],
    start: str | None = None,
) -> ray.train.Result:
    """Run `function` in the workers that params ask for, each with what `job` makes of the worker's settings.

    `run` names the folder of the storage where its checkpoints are: what is there goes on, and other unfinished runs
    are told. Where nothing is, it begins from the checkpoint folder `start` of the storage, if that is given. Rows of
    metrics go to `log(step, values)`, how far it is to the terminal.
    """
    for text in unfinished(storage, stage, run):
        print(f"{stage}: {text}", flush=True)
    take_back_request(run, storage)
    storage.write_json(f"{run}/{FORMAT_FILE}", FORMAT)
    with Progress(stage, steps, log) as progress:
        settings = WorkerSettings(
            run=run,
            storage=storage.place,
            storage_patience=params.ray.storage_patience,
            seed=params.seed,
            threads=cpus_per_worker(params.ray),
            progress=progress.queue,
            start=start,
        )
        return TorchTrainer(
            function,
            train_loop_config={"job": job(settings)},
            scaling_config=resources(params.ray),
            run_config=run_config(params.ray, run, storage, progress),
        ).fit()


def unfinished(storage: Storage, stage: str, run: str) -> Iterator[str]:
    """What to say of the stage's other runs that were stopped half-way: nothing of them is ever lost or used.

    A run and the one that finishes a copy of it are not strangers.
    """
    for name in storage.folders():
        if not name.startswith(f"{stage}-") or name.startswith(run) or run.startswith(name):
            continue
        if storage.read_json(f"{name}/{FORMAT_FILE}") == FORMAT:
            what = "with other params, code or data, which goes on when they are as they were"
        else:
            what = "of another version of this code, which only that version can go on with"
        yield f"{storage.place}/{name} is an unfinished run {what}; not wanted any more? remove the folder"


def resources(settings: Ray) -> ray.train.ScalingConfig:
    """What each worker gets; `auto` is one GPU each on a cluster that has any. Says what the cluster lacks so far."""
    gpus = settings.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
    cpus, fewest = cpus_per_worker(settings), worker_range(settings)[0]
    needed = {"CPU": fewest * cpus, "GPU": fewest * gpus}
    lacking = {name: count for name, count in needed.items() if count > ray.cluster_resources().get(name, 0)}
    for name, count in lacking.items():
        has = int(ray.cluster_resources().get(name, 0))
        print(f"ray: {fewest} workers need {count} {name}s, the cluster has {has}: waiting for nodes", flush=True)
    return ray.train.ScalingConfig(
        num_workers=settings.workers,
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        elastic_resize_monitor_interval_s=settings.resize_seconds,
    )


def run_config(settings: Ray, name: str, storage: Storage, progress: Progress) -> ray.train.RunConfig:
    """Where a run keeps its checkpoints (the last two), and how often its workers are started again."""
    return ray.train.RunConfig(
        name=name,
        storage_path=storage.place,
        failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        callbacks=[_Notes(name, storage, progress)],
    )


def take_back_request(name: str, storage: Storage) -> None:
    """Have Ray forget which workers a killed driver of this run had asked for; for the driver, before it asks itself.

    Ray itself forgets after three minutes, and until then elastic workers get what the dead request leaves.
    """
    request = storage.read_json(f"{name}/{REQUEST}")
    # Another cluster than then has no such request; another Ray than 2.60 may keep them elsewhere: then we wait.
    with suppress(ValueError, AttributeError, ray.exceptions.RayError):
        if request:
            coordinator = ray.get_actor(COORDINATOR, namespace=COORDINATOR)
            ray.get(coordinator.cancel_request.remote(request), timeout=10)


class _Notes(ray.train.UserCallback):
    """What Ray's controller knows and keeps to itself: failures of workers when they happen, and its request.

    And what it does not know: that to start the workers again mends no data.
    """

    def __init__(self, run: str, storage: Storage, progress: Progress) -> None:
        self._run, self._storage, self._queue = run, storage, progress.queue
        self._noted = False

    def after_report(self, run_context: Any, metrics: list[dict], checkpoint: object) -> None:
        if not self._noted:
            self._noted = True
            with suppress(OSError):  # a storage that is away: whoever goes on after a kill waits
                self._storage.write_json(f"{self._run}/{REQUEST}", f"train-{run_context.run_id}")

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            self._queue.put({"tell": f"worker {rank} failed: {reason(error).strip().splitlines()[-1]}"})
        for error in worker_exceptions.values():
            if words := of_data(error):
                raise ValueError(words)  # what a callback raises ends the training, whatever `max_failures` says
