"""MLflow: the training's run completed, and the model as a new version in the registry."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from pipelines.common.params import Params
from pipelines.registry.card import CARD, as_description
from pipelines.tracking.store import RUN_KEY, experiment_id, log_missing, log_params, params_of, tracking, tracking_uri


@dataclass(frozen=True)
class Registration:
    """All that goes into the run and the new model version."""

    run_name: str
    run_id: str | None  # of the live run, None where there was none
    params: Params
    rows: list[dict[str, float]]  # curves: step and metrics
    summary: dict[str, float]  # final metrics
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
    """Complete the training's run (or make it, where tracking was away) and register the model as a new version."""
    settings = what.params.register
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
            mlflow.log_metrics(what.summary)
            for path in what.reports:
                if path.is_dir():
                    mlflow.log_artifacts(str(path), path.name)
                else:
                    mlflow.log_artifact(str(path))
            mlflow.log_text(what.card, CARD)
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(what.code),
                artifacts={"checkpoint": str(what.checkpoint)},
                code_paths=[str(ipt)],
                signature=what.signature,
                input_example=what.example,
                pip_requirements=what.requirements,
            )
        with contextlib.redirect_stderr(io.StringIO()):  # it narrates there; what goes wrong is an exception
            version = mlflow.register_model(logged.model_uri, what.model, tags=what.tags)
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
