"""MLflow's store: reaching it, and what is logged there.

The store is mlflow.db and mlartifacts/ in the repository, or what MLFLOW_TRACKING_URI names. Of an experiment that DVC
runs in a copy of the repository it is that of the repository from which the experiment was started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A server that is away is noticed in seconds, not minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipelines.common.params import Params

WRITTEN = ("dvc.lock", "metrics", "plots")
EXPERIMENTS = (".dvc", "tmp", "exps")  # below it `dvc exp run --temp` and `--queue` make copies and delete them again
RUN_KEY = "instruct_ipt.train"  # tag with the name of the training run


class TrackingError(RuntimeError):
    """The tracking server cannot be used; the message says which and what to do."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else by its absolute path the SQLite file of the repository in the working directory, or of
    the one that an experiment was started from."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(_repository() / 'mlflow.db').resolve()}"


def _repository() -> Path:
    """The working directory, or where that is a copy for an experiment, the repository that the copy is of."""
    here = Path.cwd()
    copied = [folder.parents[2] for folder in here.parents if folder.parts[-3:] == EXPERIMENTS]
    return copied[-1] if copied else here  # the outermost: a copy of a copy goes when that goes


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
    """The commit checked out, with `-dirty` where code or params differ from it; `unknown` outside of git.

    What `dvc repro` itself writes (WRITTEN) makes no commit dirty.
    """
    commit = _git("rev-parse", "HEAD").strip()
    if not commit:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{name}" for name in WRITTEN))
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    """What git prints; nothing where there is no git or it fails."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
