"""The weights that a training begins with: random ones, or those of a model that is there already."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Literal

from torch import nn

from ipt.biases.adapters import adapter_state, hold_backbone, load_adapter
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.training.fit import TrainingSettings, TrainingState
from pipelines.cluster.progress import History
from pipelines.cluster.storage import Storage

START = "start"  # the folder in a run's of the checkpoint where it begins
Learn = Literal["all", "biases"] | tuple[str, ...]  # what changes: the names are those of tasks whose biases do


def new_network(config: ModelConfig, learn: Learn) -> TaskNetwork:
    """A network as it is before the training; unless all of it learns, the biases alone will change."""
    network = TaskNetwork(config)
    if learn != "all":
        hold_backbone(network)
    return network


def weights_hash(given: TaskNetwork) -> str:
    """A hash of a network's weights, wherever they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(given.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:16]


def begin(storage: Storage, run: str, network: nn.Module, settings: TrainingSettings) -> str:
    """Put `network` into the storage as the checkpoint before the first step of `run`; the folder there.

    One that is there already stays: the run is going on.
    """
    folder = f"{run}/{START}"
    if storage.read_json(f"{folder}.json") is None:
        with tempfile.TemporaryDirectory() as temporary:
            TrainingState(network, settings).save(Path(temporary))
            History().write(Path(temporary))
            storage.put(Path(temporary), folder)
        storage.write_json(f"{folder}.json", {"from": "begin_with"})  # last: the checkpoint is whole
    return folder


def begun_with(given: TaskNetwork, config: ModelConfig, learn: Learn) -> TaskNetwork:
    """A network of `config` with the backbone of `given`, and its biases of those tasks that it knows.

    A task that it does not know begins with the backbone alone. Raises ValueError where the two are built differently,
    with what to write into params.yaml.
    """
    same = dataclasses.replace(given.config, tasks=config.tasks)
    if same != config:
        differing = [
            f"{field.name} {getattr(given.config, field.name)}, here {getattr(config, field.name)}"
            for field in dataclasses.fields(ModelConfig)
            if getattr(same, field.name) != getattr(config, field.name)
        ]
        raise ValueError(
            f"params.yaml.train.begin_with: that model is built differently: {'; '.join(differing)}. Set "
            f"model.preset to its own, modulation.rank: {given.config.rank} and modulation.layers: "
            f"[{', '.join(given.config.layers)}]"
        )
    network = new_network(config, learn)
    factors = (".task_up", ".task_down")
    shared = {name: value for name, value in given.state_dict().items() if not name.endswith(factors)}
    network.load_state_dict(network.state_dict() | shared)
    for task in config.tasks:
        if task in given.config.tasks:
            bias = adapter_state(given.backbone, given.task_index(task))
            load_adapter(network.backbone, network.task_index(task), bias)
    return network
