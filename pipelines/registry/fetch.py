"""A registered model by its name: which version an alias means now, and its checkpoint on this machine."""

from __future__ import annotations

from pathlib import Path

import mlflow

from pipelines.tracking.store import tracking


def fetch_checkpoint(uri: str, into: Path) -> Path:
    """The checkpoint folder of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, copied below `into`.

    Raises RuntimeError where the store or the version is not there, ValueError where that is none of our models.
    `InstructIPT.from_pretrained` finds this function by the entry point `ipt.models` of this package.
    """
    with tracking("the same command again"):
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    return checkpoint_in(folder)


def checkpoint_in(folder: Path) -> Path:
    """Where a registered model's folder has the checkpoint; ValueError where MLmodel names no folder inside of it."""
    described = folder / "MLmodel"
    try:
        flavor = mlflow.models.Model.load(folder).flavors["python_function"]
        named = flavor["artifacts"]["checkpoint"]["path"]
        inside = (folder / named).resolve().is_relative_to(folder.resolve())
    except Exception as error:  # the file is a stranger's: MLflow and YAML raise at it whatever comes to them
        raise ValueError(
            f"{described}: expected the path of an artifact 'checkpoint' ({type(error).__name__}: {error}); is this a "
            "model of instruct-ipt, a version that `dvc repro register` made?"
        ) from error
    if not (inside and (folder / named).is_dir()):
        raise ValueError(f"{described}: checkpoint: expected a folder inside of the model's own, got '{named}'")
    return folder / named


def current_version(uri: str) -> str:
    """`models:/NAME@ALIAS` as `models:/NAME/VERSION` of the version that the alias names now.

    Another URI comes back as it is. Raises RuntimeError where the store, the model or the alias is not there.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        return uri
    with tracking("the same command again") as client:
        return f"models:/{name}/{client.get_model_version_by_alias(name, alias).version}"
