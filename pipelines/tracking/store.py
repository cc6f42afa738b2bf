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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A server that is away is noticed in seconds, not minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.registry import resolve_tags

from pipelines.common.params import Params

RUN_KEY = "instruct_ipt.train"  # tag with the name of the training run
RETRY = 30  # seconds between attempts to reach a store that is away


class TrackingError(RuntimeError):
    """The tracking server cannot be used; the message says which and what to do."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the SQLite file of the repository in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


@contextlib.contextmanager
def tracking(again: str) -> Iterator[mlflow.MlflowClient]:
    """A client of the tracking store; what goes wrong with it inside the block becomes a TrackingError.

    `again` is the command for when the store is back.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(SystemMetricsMonitor.__module__).setLevel(logging.CRITICAL)  # we say ourselves what is away
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri())
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, ConnectionError) as error:
        raise TrackingError(f"MLflow at {tracking_uri()}: {error}\nWhen it is back: {again}") from error


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an experiment, which is made when absent (where the store is an SQLite file, artifacts go to
    mlartifacts/ beside it)."""
    experiment = client.get_experiment_by_name(name)
    if experiment:
        return experiment.experiment_id
    file = client.tracking_uri.partition("?")[0].removeprefix("sqlite:///")
    beside = Path(file).resolve().with_name("mlartifacts").as_uri() if client.tracking_uri != file else None
    return client.create_experiment(name, artifact_location=beside)


class LiveRun:
    """Mirrors a training into MLflow while it runs; a store that is away costs the mirror, never the training.

    What could not be logged waits and is tried again every RETRY seconds and at the end; what is missing even then is
    told. `run_id` is the MLflow run, or None. A continued training continues its run.
    """

    def __init__(self, params: Params, name: str) -> None:
        self.run_id: str | None = None
        self._params, self._name = params, name
        self._waiting: list[Metric] = []
        self._away_since: float | None = None  # the last attempt that failed
        self._monitor: SystemMetricsMonitor | None = None

    def __enter__(self) -> LiveRun:
        self._attempt()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        if self._monitor:
            self._monitor.finish()
        status = "FAILED" if kind else "FINISHED"
        if not self._attempt(lambda client: client.set_terminated(self.run_id, status)):
            self._tell(f"{self._missing()}; when it is back, `dvc repro register` logs what is missing")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log metrics of one step, and those that wait."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if self._away_since is None or time.monotonic() - self._away_since >= RETRY:
            self._attempt(self._keep_monitoring)

    def _attempt(self, last: Callable[[mlflow.MlflowClient], Any] = lambda client: None) -> bool:
        """Start the run where that is still to do, log what waits, do `last`; False where the store is away."""
        try:
            with tracking("`dvc repro train`") as client:
                if not self.run_id:
                    self._start(client)
                log_metrics(client, self.run_id, self._waiting)
                back, self._waiting, self._away_since = self._away_since, [], None
                last(client)
        except TrackingError as error:
            if self._away_since is None:
                self._tell(f"no live tracking ({str(error).splitlines()[0]}); training goes on and tries again")
            self._away_since = time.monotonic()
            return False
        if back is not None:
            self._tell("MLflow is back, and all values are logged")
        return True

    def _start(self, client: mlflow.MlflowClient) -> None:
        experiment = experiment_id(client, self._params.register.experiment)
        open_runs = client.search_runs(
            [experiment],
            f"tags.`{RUN_KEY}` = '{self._name}' and attributes.status != 'FINISHED'",
            max_results=1,
        )
        if open_runs:
            run_id = open_runs[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            run_id = client.create_run(
                experiment, tags=resolve_tags({RUN_KEY: self._name}), run_name=self._name
            ).info.run_id
        changed = log_params(client, run_id, params_of(self._params))
        tags = {"git_commit": git_commit()} | {f"continued_with.{name}": value for name, value in changed.items()}
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        self.run_id = run_id
        self._keep_monitoring(client)

    def _keep_monitoring(self, client: mlflow.MlflowClient) -> None:
        """Start MLflow's system metrics; they end where the store is away, and start anew where it is back."""
        if not any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate()):
            self._monitor = SystemMetricsMonitor(self.run_id, resume_logging=True)
            self._monitor.start()

    def _missing(self) -> str:
        """What the store has not, in words."""
        steps = [metric.step for metric in self._waiting]
        values = f"{len(steps)} values of steps {min(steps)} to {max(steps)}" if steps else "no values"
        run = f"run {self.run_id} lacks" if self.run_id else f"there is no run of {self._name}, it lacks"
        return f"{tracking_uri()} is away: {run} {values}, and its end"

    @staticmethod
    def _tell(text: str) -> None:
        print(f"train: {text}", file=sys.stderr, flush=True)


def log_metrics(client: mlflow.MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Log any number of metrics; a metric that the run has already, to the millisecond, is not doubled."""
    for start in range(0, len(metrics), 500):
        client.log_batch(run_id, metrics=metrics[start : start + 500])


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
    log_metrics(client, run_id, missing)
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
