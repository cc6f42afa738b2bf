"""MLflow: the training's run completed, and the model as a new version in the registry."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from pipelines.common.params import Params
from pipelines.registry.card import CARD, as_description
from pipelines.registry.fetch import checkpoint_in
from pipelines.registry.integrity import FILES, check_files, file_hashes
from pipelines.tracking.store import RUN_KEY, experiment_id, log_missing, log_params, params_of, tracking, tracking_uri


@dataclass(frozen=True)
class Data:
    """A folder of data in the repository, with DVC's hash of it (at most 36 characters), as MLflow shows it."""

    name: str
    folder: str
    hash: str

    def dataset(self) -> Dataset:
        """It as an MLflow dataset."""
        return Dataset(self.name, self.hash, "local", json.dumps({"uri": self.folder}))


@dataclass(frozen=True)
class Measured:
    """Final metrics by name, and the data that they were measured on, where it is one and known."""

    metrics: dict[str, float]
    data: Data | None = None


@dataclass(frozen=True)
class Registration:
    """All that goes into the run and the new model version."""

    run_name: str
    run_id: str | None  # of the live run, None where there was none
    params: Params
    rows: list[dict[str, float]]  # curves: step and metrics
    learnt_from: list[Data]
    summary: list[Measured]
    reports: list[Path]
    checkpoint: Path
    code: Path
    requirements: list[str]
    example: Any
    card: str
    tags: dict[str, str]
    model: str  # the name in the registry
    signature: mlflow.models.ModelSignature
    again: str  # the command for when the store is back


def register_model(what: Registration) -> dict[str, Any]:
    """Complete the training's run (or make it, where tracking was away) and register the model as a new version.

    Its tag FILES has the SHA-256 of the checkpoint's files. Raises CheckpointError where others arrived in the store.
    """
    settings = what.params.register
    hashes = file_hashes(what.checkpoint)
    with tracking(what.again) as client, tempfile.TemporaryDirectory() as folder:
        ipt = shutil.copytree("ipt", Path(folder) / "ipt", ignore=shutil.ignore_patterns("released", "__pycache__"))
        experiment = experiment_id(client, settings.experiment)
        with mlflow.start_run(
            run_id=_run_to_complete(client, what),
            experiment_id=experiment,
            run_name=what.run_name,
        ) as run:
            run_id = run.info.run_id
            log_params(client, run_id, params_of(what.params))
            tags = {RUN_KEY: what.run_name, **what.tags}
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
            filled = log_missing(client, run_id, what.rows)
            context = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
            client.log_inputs(run_id, [DatasetInput(data.dataset(), context) for data in what.learnt_from])
            for path in what.reports:
                if path.is_dir():
                    mlflow.log_artifacts(str(path), path.name)
                else:
                    mlflow.log_artifact(str(path))
            mlflow.log_text(what.card, CARD)
            logged = _log_model(what, ipt)
        arrived = mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(Path(folder) / "arrived"))
        check_files(checkpoint_in(Path(arrived)), hashes, logged.model_uri)
        with contextlib.redirect_stderr(io.StringIO()):  # it narrates there; what goes wrong is an exception
            version = mlflow.register_model(logged.model_uri, what.model, tags=what.tags | {FILES: hashes})
        client.update_model_version(what.model, version.version, as_description(what.card))
        client.set_registered_model_alias(what.model, settings.alias, version.version)
    return {
        "model": what.model,
        "version": int(version.version),
        "alias": settings.alias,
        "run": run_id,
        "tracking": tracking_uri(),
        "values_logged_late": filled,
    }


def _log_model(what: Registration, ipt: Path) -> Any:
    """Log the model, with the package `ipt`, and its metrics into the active run; what MLflow says of it."""
    logged = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(what.code),
        artifacts={"checkpoint": str(what.checkpoint)},
        code_paths=[str(ipt)],
        signature=what.signature,
        input_example=what.example,
        pip_requirements=what.requirements,
        step=max((int(row["step"]) for row in what.rows), default=0),  # whose metrics MLflow makes this model's
    )
    for part in what.summary:  # of step 0, which the next model of this run does not take for its own
        data = part.data.dataset() if part.data else None
        mlflow.log_metrics(part.metrics, model_id=logged.model_id, dataset=data)
    return logged


def signature() -> mlflow.models.ModelSignature:
    """An encoded image with a task or an instruction in; the restored image, what was done and why, or an error out."""
    schema = mlflow.types.Schema
    column = mlflow.types.ColSpec
    return mlflow.models.ModelSignature(
        inputs=schema(
            [
                column("binary", "image"),
                column("string", "task", required=False),
                column("string", "instruction", required=False),
                column("double", "strength", required=False),
            ]
        ),
        outputs=schema(
            [
                column("binary", "image", required=False),
                column("string", "task", required=False),
                column("string", "probabilities", required=False),
                column("string", "error", required=False),
            ]
        ),
    )


def sampler_signature() -> mlflow.models.ModelSignature:
    """How many images, seed and steps in; for each image the row that asked for it, and the PNG or an error."""
    schema = mlflow.types.Schema
    column = mlflow.types.ColSpec
    return mlflow.models.ModelSignature(
        inputs=schema([column("long", name) for name in ("n", "seed", "steps")]),
        outputs=schema(
            [
                column("long", "row"),
                column("binary", "image", required=False),
                column("string", "error", required=False),
            ]
        ),
    )


def _run_to_complete(client: mlflow.MlflowClient, what: Registration) -> str | None:
    """The training's run where the store has it and its params are today's, else None: a new run then tells it all.

    The model may come from a machine with another store, and a stage after training may have other params by now.
    """
    if not what.run_id:
        return None
    try:
        known = client.get_run(what.run_id).data.params
    except MlflowException:
        return None
    now = params_of(what.params)
    return what.run_id if all(now.get(name) == value for name, value in known.items()) else None
