"""A training run's checkpoints from inside its workers, through storage that is away for a while."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import ray.train

from ipt.training.fit import TrainingState
from pipelines.cluster.progress import History, Life
from pipelines.cluster.storage import Patience, Storage, upload

LIVES = "lives.json"  # in the run's folder
LATEST = "latest.json"  # in the run's folder: which folder there holds the last checkpoint, and of which step


def read_lives(storage: Storage, run: str) -> list[Life]:
    """Every start of a run's workers, in order."""
    return [Life(**life) for life in storage.read_json(f"{run}/{LIVES}") or []]


@dataclass(frozen=True)
class Latest:
    """The last whole checkpoint of a run."""

    folder: str  # in the storage
    step: int


def latest_checkpoint(storage: Storage, run: str) -> Latest | None:
    """The last checkpoint of a run, None where it has none."""
    found = storage.read_json(f"{run}/{LATEST}")
    return Latest(f"{run}/{found['folder']}", found["step"]) if found else None


@dataclass
class Checkpoints:
    """Reads and writes the checkpoints of a run; the same calls in every worker, since each waits for all."""

    state: TrainingState
    storage: Storage
    run: str  # its folder in the storage
    patience: Patience
    start: str | None = None  # the folder in the storage to begin from, where the run has no checkpoint yet
    history: History = field(default_factory=History)
    written: int | None = None  # step of the last one of this life

    def restore(self) -> None:
        """Load the last checkpoint into state and history, where there is one, and report that this worker is there."""
        # Not Ray's own note: it comes a moment after this one, and a run that is stopped in between would go back.
        latest = self.patience(latest_checkpoint, self.storage, self.run)
        start = latest.folder if latest else self.start
        if start:
            self.patience(self._fetch, start)
        ray.train.report({"step": self.state.step})  # the first report: `_Notes` in workers.py notes the run

    def begin(self, step: int, seconds_ago: float) -> int:
        """Note that the workers have begun, after `step`, with a batch; returns how often they had before.

        For the first worker alone.
        """
        lives = self.patience(read_lives, self.storage, self.run)
        life = Life(step, time.time() - seconds_ago, ray.train.get_context().get_world_size())
        rows = [asdict(each) for each in (*lives, life)]
        self.patience(self.storage.write_json, f"{self.run}/{LIVES}", rows)
        return len(lives)

    def write(self) -> None:
        """Report the whole state to Ray Train, which waits until every worker has come here."""
        step = self.written = self.state.step
        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            self.history.checkpoints.append({"step": step, "time": time.time()})
            self.state.save(Path(folder))
            self.history.write(Path(folder))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": step}, checkpoint=checkpoint, checkpoint_upload_fn=self._upload)

    def finish(self) -> None:
        """Report the last step where this life has not: it went on after it."""
        if self.written != self.state.step:
            self.write()

    def _fetch(self, start: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.storage.fetch(start, Path(folder))
            self.state.load(Path(folder))
            self.history = History.read(Path(folder))

    def _upload(self, checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        store = ray.train.get_context().get_storage()
        target = f"{store.experiment_fs_path}/{name}"
        self.patience(upload, Path(checkpoint.path), store.storage_filesystem, target)
        latest = {"folder": name, "step": self.state.step}
        self.patience(self.storage.write_json, f"{self.run}/{LATEST}", latest)
        return ray.train.Checkpoint(target, store.storage_filesystem)
