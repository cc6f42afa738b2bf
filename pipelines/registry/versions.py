"""The registered model's versions in MLflow: which is champion, which was before, and how that changes safely."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines.common.params import PREVIOUS
from pipelines.registry.fetch import checkpoint_in, fetch_model
from pipelines.registry.lease import leased
from pipelines.tracking.store import TrackingError, experiment_id, tracking

MOVE = "promote.move"  # tag of the registered model while its aliases move: "OLD>NEW"
WEIGHTS = "weights_sha256"  # tag of a version that was copied from another registry


@dataclass(frozen=True)
class Registered:
    """A registered model in a tracking store."""

    client: mlflow.MlflowClient
    model: str
    champion: str  # the alias

    def aliases(self) -> dict[str, int]:
        """The version that each alias names. Raises ValueError where the model is not registered."""
        return {alias: int(version) for alias, version in self._model().aliases.items()}

    def version(self, number: int) -> ModelVersion:
        """A version by its number; a ValueError lists those that there are."""
        found = {int(v.version): v for v in self.client.search_model_versions(f"name = '{self.model}'")}
        if number not in found:
            raise ValueError(
                f"{self.model}: expected one of the versions {', '.join(map(str, sorted(found)))}; got {number}"
            )
        return found[number]

    def move(self, old: int | None, new: int) -> None:
        """The champion alias from `old` (None: from none) to `new`, the alias `previous` to `old`, under a lease.

        Raises RuntimeError where another version is champion by now, LeaseError where another command moves them.
        Killed at any point it leaves a champion; `settle` finishes or forgets the move.
        """
        with leased(self.client, self.model) as check:
            self._settle(check)
            now = self.aliases().get(self.champion)
            if now != old:
                raise RuntimeError(
                    f"{f'version {now}' if now else 'no version'} became {self.champion} meanwhile (it was "
                    f"{f'version {old}' if old else 'none'}); nothing moved, run it again"
                )
            if old is not None:
                check()
                self.client.set_registered_model_tag(self.model, MOVE, f"{old}>{new}")
            check()
            self.client.set_registered_model_alias(self.model, self.champion, str(new))
            self._settle(check)

    def settle(self) -> None:
        """Finish a move that was killed after it changed the champion alias; forget one that was killed before.

        Raises LeaseError where the move is being made by another command.
        """
        if MOVE in self._model().tags:
            with leased(self.client, self.model) as check:
                self._settle(check)

    def _settle(self, check: Callable[[], None]) -> None:
        move = self._model().tags.get(MOVE)
        if move:
            old, new = move.split(">")
            check()
            if self.aliases().get(self.champion) == int(new):
                self.client.set_registered_model_alias(self.model, PREVIOUS, old)
            self.client.delete_registered_model_tag(self.model, MOVE)

    def text(self, number: int, path: str) -> str:
        """A text among the artifacts of the version's run; empty where there is none such."""
        run_id = _run_of(self.version(number))
        if path not in [file.path for file in self.client.list_artifacts(run_id)]:
            return ""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, path, folder)).read_text()

    def record(self, number: int, texts: dict[str, str], tags: dict[str, str], description: str) -> None:
        """Texts (path -> text) as artifacts of the version's run, tags and a description on the version."""
        run_id = _run_of(self.version(number))
        for path, text in texts.items():
            self.client.log_text(run_id, text, path)
        for name, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), name, value)
        self.client.update_model_version(self.model, str(number), description)

    def _model(self):
        found = self.client.search_registered_models(f"name = '{self.model}'")
        if not found:
            raise ValueError(
                f"{self.model}: no such registered model in {self.client.tracking_uri}; "
                "`dvc repro register` makes its first version"
            )
        return found[0]


@contextmanager
def registered(model: str, champion: str, again: str) -> Iterator[Registered]:
    """The registered model in the tracking store; `again` is the command for when the store is back."""
    with tracking(again) as client:
        yield Registered(client, model, champion)


def copy_version(here: Registered, number: int, uri: str, experiment: str, alias: str) -> tuple[int, bool]:
    """Copy a version to the tracking server at `uri`, where `alias` names it then; returns its number there and
    whether it had to be copied: a version with these weights is not copied twice.

    Files, description, tags, and the run with its params, last metrics and artifacts go along. Raises TrackingError
    where the server cannot be used, CheckpointError where the files are not those that were registered.
    """
    version = here.version(number)
    there = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    with tempfile.TemporaryDirectory() as temporary:
        folder = fetch_model(f"models:/{here.model}/{number}", Path(temporary))
        digest = weights_digest(folder)
        try:
            same = [
                int(other.version)
                for other in there.search_model_versions(f"name = '{here.model}'")
                if other.tags.get(WEIGHTS) == digest
            ]
            made = same[0] if same else _copy(here, version, folder, there, experiment, digest)
            there.set_registered_model_alias(here.model, alias, str(made))
        except MlflowException as error:
            raise TrackingError(
                f"copying version {number} to {uri}: {error}\nWhen it is back: the same again"
            ) from error
    return made, not same


def _copy(
    here: Registered, version: ModelVersion, folder: Path, there: mlflow.MlflowClient, experiment: str, digest: str
) -> int:
    origin = here.client.get_run(_run_of(version))
    experiment = experiment_id(there, experiment)
    run_id = there.create_run(experiment, run_name=origin.info.run_name).info.run_id
    there.log_batch(
        run_id,
        metrics=[Metric(name, value, 0, 0) for name, value in origin.data.metrics.items()],
        params=[Param(name, value) for name, value in origin.data.params.items()],
        tags=[RunTag(name, value) for name, value in origin.data.tags.items() if not name.startswith("mlflow.")],
    )
    with tempfile.TemporaryDirectory() as artifacts:
        there.log_artifacts(run_id, here.client.download_artifacts(origin.info.run_id, "", artifacts))
    there.set_terminated(run_id)
    logged = there.create_logged_model(experiment, "model", source_run_id=run_id)
    there.log_model_artifacts(logged.model_id, str(folder))
    there.finalize_logged_model(logged.model_id, "READY")
    if not there.search_registered_models(f"name = '{here.model}'"):
        there.create_registered_model(here.model)
    made = there.create_model_version(
        here.model,
        logged.artifact_location,
        run_id,
        tags=version.tags | {WEIGHTS: digest, "copied_from": f"{here.model} version {version.version}"},
        description=version.description,
        model_id=logged.model_id,
    )
    return int(made.version)


def _run_of(version: ModelVersion) -> str:
    if version.run_id is None:
        raise ValueError(f"{version.name}: version {version.version} belongs to no run")
    return version.run_id


def weights_digest(folder: Path) -> str:
    """The SHA-256 of the checkpoint's files in a registered model's folder."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint_in(folder).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
