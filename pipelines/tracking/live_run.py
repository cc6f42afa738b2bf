"""The MLflow run that follows a training while it runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import Metric, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.registry import resolve_tags

from pipelines.common.params import Params
from pipelines.tracking.store import (
    RUN_KEY,
    TrackingError,
    experiment_id,
    git_commit,
    log_metrics,
    log_params,
    params_of,
    tracking,
    tracking_uri,
)

RETRY = 30  # seconds between attempts to reach a store that is away


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
        if not self._attempt(lambda client, run_id: client.set_terminated(run_id, status)):
            self._tell(f"{self._missing()}; when it is back, `dvc repro register` logs what is missing")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log metrics of one step, and those that wait."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if self._away_since is None or time.monotonic() - self._away_since >= RETRY:
            self._attempt(self._keep_monitoring)

    def _attempt(self, last: Callable[[mlflow.MlflowClient, str], Any] = lambda client, run_id: None) -> bool:
        """Start the run where that is still to do, log what waits, do `last`; False where the store is away."""
        try:
            with tracking("`dvc repro train`") as client:
                run_id = self.run_id or self._start(client)
                log_metrics(client, run_id, self._waiting)
                back, self._waiting, self._away_since = self._away_since, [], None
                last(client, run_id)
        except TrackingError as error:
            if self._away_since is None:
                self._tell(f"no live tracking ({str(error).splitlines()[0]}); training goes on and tries again")
            self._away_since = time.monotonic()
            return False
        if back is not None:
            self._tell("MLflow is back, and all values are logged")
        return True

    def _start(self, client: mlflow.MlflowClient) -> str:
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
        self._keep_monitoring(client, run_id)
        return run_id

    def _keep_monitoring(self, client: mlflow.MlflowClient, run_id: str) -> None:
        """Start MLflow's system metrics; they end where the store is away, and start anew where it is back."""
        if not any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate()):
            self._monitor = SystemMetricsMonitor(run_id, resume_logging=True)
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
