"""A registered model by its name: which version an alias means now, and its checkpoint on this machine."""

from __future__ import annotations

from pathlib import Path

import mlflow

from pipelines.tracking.store import tracking


def fetch_checkpoint(uri: str, into: Path) -> Path:
    """The checkpoint folder of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, copied below `into`.

    Raises RuntimeError where the store or the version is not there, ValueError for a version that is not one of ours.
    `InstructIPT.from_pretrained` finds this function by the entry point `ipt.models` of this package.
    """
    with tracking("the same command again"):
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    return checkpoint_in(folder)


def checkpoint_in(folder: Path) -> Path:
    """Where a registered model's folder has the checkpoint; a ValueError for a model that is not one of ours."""
    try:
        flavor = mlflow.models.Model.load(folder).flavors["python_function"]
        return folder / flavor["artifacts"]["checkpoint"]["path"]
    except Exception as error:  # the file is a stranger's: MLflow and YAML raise at it whatever comes to them
        raise ValueError(
            f"the registered model has no checkpoint of Instruct-IPT ({type(error).__name__}: {error}); expected a "
            "version that `dvc repro register` made"
        ) from error


def current_version(uri: str) -> str:
    """`models:/NAME@ALIAS` as `models:/NAME/VERSION` of the version that the alias names now.

    Another URI comes back as it is. Raises RuntimeError where the store, the model or the alias is not there.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        return uri
    with tracking("the same command again") as client:
        return f"models:/{name}/{client.get_model_version_by_alias(name, alias).version}"
