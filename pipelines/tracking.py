"""MLflow: the store, and the run that follows a training.

The store is mlflow.db and mlartifacts/ in the repository, or what MLFLOW_TRACKING_URI names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A server that is away is noticed in seconds, not minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipelines.params import Params

RUN_KEY = "instruct_ipt.train"  # tag with the name of the training run


class TrackingError(RuntimeError):
    """The tracking server cannot be used; the message says which and what to do."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the SQLite file of the repository in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _local_store()


def _local_store() -> str:
    return f"sqlite:///{Path('mlflow.db').resolve()}"


@contextlib.contextmanager
def tracking(again: str) -> Iterator[mlflow.MlflowClient]:
    """A client of the tracking store; what goes wrong with it inside the block becomes a TrackingError.

    `again` is the command for when the store is back.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri())
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, ConnectionError) as error:
        raise TrackingError(f"MLflow at {tracking_uri()}: {error}\nWhen it is back: {again}") from error


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an experiment, which is made when absent (local artifacts go to mlartifacts/)."""
    experiment = client.get_experiment_by_name(name)
    if experiment:
        return experiment.experiment_id
    local = mlflow.get_tracking_uri() == _local_store()  # its default would be a folder mlruns/
    return client.create_experiment(name, artifact_location=Path("mlartifacts").resolve().as_uri() if local else None)


class LiveRun:
    """Mirrors a training into MLflow while it runs; a store that is away costs the mirror, never the training.

    `run_id` is the MLflow run, or None. A continued training continues its run.
    """

    def __init__(self, params: Params, name: str) -> None:
        self.run_id: str | None = None
        self._params, self._name = params, name
        self._alive = False

    def __enter__(self) -> LiveRun:
        self._attempt(self._start)
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        status = "FAILED" if kind else "FINISHED"
        if self._alive:
            self._attempt(lambda: mlflow.end_run(status))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log metrics of one step."""
        if self._alive:
            self._attempt(lambda: mlflow.log_metrics(values, step=step))

    def _start(self) -> None:
        with tracking("`dvc repro train`") as client:
            experiment = experiment_id(client, self._params.register.experiment)
            open_runs = client.search_runs(
                [experiment],
                f"tags.`{RUN_KEY}` = '{self._name}' and attributes.status != 'FINISHED'",
                max_results=1,
            )
            run = mlflow.start_run(
                run_id=open_runs[0].info.run_id if open_runs else None,
                experiment_id=experiment,
                run_name=self._name,
                log_system_metrics=True,
            )
            self.run_id = run.info.run_id
            self._alive = True
            changed = log_params(client, self.run_id, params_of(self._params))
            tags = {RUN_KEY: self._name, "git_commit": git_commit()}
            tags |= {f"continued_with.{name}": value for name, value in changed.items()}
            client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except (TrackingError, MlflowException, ConnectionError) as error:
            self._alive = False
            print(
                f"train: no live tracking ({error}); training goes on, `register` logs it whole later",
                file=sys.stderr,
                flush=True,
            )


def log_missing(client: mlflow.MlflowClient, run_id: str, rows: list[dict[str, float]]) -> int:
    """Log the metrics of `rows` (each with `step`) that the run has not; returns how many values were missing."""
    names = {name for row in rows for name in row if name != "step"}
    known = {(name, metric.step) for name in names for metric in client.get_metric_history(run_id, name)}
    missing = [
        Metric(name, value, 0, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step" and (name, int(row["step"])) not in known
    ]
    for start in range(0, len(missing), 500):
        client.log_batch(run_id, metrics=missing[start : start + 500])
    return len(missing)


def log_params(client: mlflow.MlflowClient, run_id: str, params: dict[str, str]) -> dict[str, str]:
    """Log the params that the run has not; returns those it has with another value, which MLflow never changes."""
    known = client.get_run(run_id).data.params
    client.log_batch(run_id, params=[Param(name, value) for name, value in params.items() if name not in known])
    return {name: value for name, value in params.items() if known.get(name, value) != value}


def params_of(params: Params) -> dict[str, str]:
    """All of params.yaml as flat MLflow params such as train.steps."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[prefix] = value

    walk("", dataclasses.asdict(params))
    return {name: str(value)[:6000] for name, value in flat.items()}


def git_commit() -> str:
    """The commit checked out, with `-dirty` where files differ from it; `unknown` outside of git."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"
