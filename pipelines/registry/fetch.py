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
    flavor = mlflow.models.Model.load(folder).flavors.get("python_function") or {}
    named = ((flavor.get("artifacts") or {}).get("checkpoint") or {}).get("path")
    if not isinstance(named, str):
        raise ValueError(
            f"{described}: expected the path of an artifact 'checkpoint'; is this a model of instruct-ipt?"
        )
    checkpoint = folder / named
    if not (checkpoint.is_dir() and checkpoint.resolve().is_relative_to(folder.resolve())):
        raise ValueError(f"{described}: checkpoint: expected a folder inside of the model's own, got '{named}'")
    return checkpoint


def current_version(uri: str) -> str:
    """`models:/NAME@ALIAS` as `models:/NAME/VERSION` of the version that the alias names now.

    Another URI comes back as it is. Raises RuntimeError where the store, the model or the alias is not there.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        return uri
    with tracking("the same command again") as client:
        return f"models:/{name}/{client.get_model_version_by_alias(name, alias).version}"
