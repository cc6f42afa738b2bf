"""How every Ray Train worker begins: its place among the others, its device, and the state that the run has reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from ray.util.queue import Queue
from torch import nn

from ipt.training.fit import TrainingSettings, TrainingState
from pipelines.cluster.checkpoints import Checkpoints
from pipelines.cluster.storage import Patience, Storage


@dataclass(frozen=True)
class WorkerSettings:
    """What each worker of a run is told, whatever it trains."""

    run: str
    storage: str  # the place of `ray.storage`
    storage_patience: float
    seed: int
    threads: int
    progress: Queue
    start: str | None  # the folder of a checkpoint in the storage to begin from; None: from nothing


@dataclass(frozen=True)
class Worker:
    """One worker, ready to train."""

    settings: WorkerSettings
    rank: int
    workers: int
    device: torch.device
    network: nn.Module  # the state's model, as wrapped for distributed training
    state: TrainingState
    patience: Patience
    checkpoints: Checkpoints

    def log(self, values: dict[str, float]) -> None:
        """Send values of the step to the driver; the first worker speaks for all."""
        if self.rank == 0:
            self.settings.progress.put({"step": self.state.step} | values)


def start_worker(
    settings: WorkerSettings,
    new_model: Callable[[], nn.Module],
    training: Callable[[torch.device], TrainingSettings],
) -> Worker:
    """Build the model with the run's seed and go on from its last checkpoint; every worker of a run calls it once."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    device = get_device()
    model = new_model()
    network = prepare_model(model)
    network.train()
    state = TrainingState(model, training(device))

    def tell(text: str) -> None:
        settings.progress.put({"tell": text})

    storage = Storage(settings.storage)
    patience = Patience(storage.place, settings.storage_patience, tell)
    checkpoints = Checkpoints(state, storage, settings.run, patience, settings.start)
    checkpoints.restore()
    if rank == 0 and state.step:
        tell(f"continues from step {state.step} of {state.settings.steps}, workers: {workers}")
    return Worker(settings, rank, workers, device, network, state, patience, checkpoints)
