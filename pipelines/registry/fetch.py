"""A registered model by its name: which version an alias means now, and its checkpoint on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.store.artifact.utils.models import get_model_name_and_version

from pipelines.registry.integrity import FILES, check_files
from pipelines.tracking.store import tracking


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def fetch_checkpoint(uri: str, into: Path, tell: Callable[[str], None] = _to_stderr) -> Path:
    """The checkpoint folder of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, copied below `into`.

    `into` is nobody else's: the copy is what is checked and what is to be loaded. `tell` gets a sentence where the
    version was registered without hashes of its files. Raises RuntimeError where the store or the version is not there,
    ValueError where that is none of our models, CheckpointError where its files are not those that were registered.
    `InstructIPT.from_pretrained` finds this function by the entry point `ipt.models` of this package.
    """
    return checkpoint_in(fetch_model(uri, into, tell))


def fetch_model(uri: str, into: Path, tell: Callable[[str], None] = _to_stderr) -> Path:
    """The whole folder of a registered model, as `fetch_checkpoint`, which is in it."""
    with tracking("the same command again") as client:
        name, *number = map(str, get_model_name_and_version(client, uri))  # once: an alias may move between two looks
        version = "/".join((f"models:/{name}", *number))
        registered = client.get_model_version(name, *number).tags.get(FILES) if number else None
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=version, dst_path=str(into)))
    checkpoint = checkpoint_in(folder)
    if registered is None:
        tell(
            f"{version}: registered without hashes of its files, so nothing says whether they are still the ones that "
            "were registered; register it anew"
        )
    else:
        check_files(checkpoint, registered, version)
    return folder


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
