"""The weights that a training begins with: random ones, or those of a model that is there already."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Literal

from ipt.network.config import ModelConfig
from ipt.network.modulation import task_parameters
from ipt.network.task_network import TaskNetwork
from ipt.pretrained import pretrained_network
from ipt.training.fit import TrainingSettings, TrainingState
from pipelines.cluster.progress import History
from pipelines.cluster.storage import Storage

START = "start"  # the folder in a run's of the checkpoint where it begins
Learn = Literal["all", "biases"] | tuple[str, ...]  # what changes: the names are those of tasks whose biases do


def new_network(config: ModelConfig, learn: Learn) -> TaskNetwork:
    """A network as it is before the training; unless all of it learns, the biases alone will change."""
    network = TaskNetwork(config)
    if learn != "all":
        network.requires_grad_(False)
        for factor in task_parameters(network):
            factor.requires_grad_(True)
    return network


def weights_hash(source: str) -> str:
    """A hash of the weights of `source`, wherever they lie."""
    digest = hashlib.sha256()
    for name, value in sorted(pretrained_network(source).state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:16]


def begin(storage: Storage, run: str, network: TaskNetwork, settings: TrainingSettings) -> str:
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


def begun_with(source: str, config: ModelConfig, learn: Learn) -> TaskNetwork:
    """A network of `config` with the backbone of `source`, and its biases of those tasks that it knows.

    `source` is what `InstructIPT.from_pretrained` reads, or models/trained. A task that it does not know begins with
    the backbone alone. Raises ValueError where the two are built differently, with what to write into params.yaml.
    """
    given = pretrained_network(source)
    same = dataclasses.replace(given.config, tasks=config.tasks)
    if same != config:
        differing = [
            f"{field.name} {getattr(given.config, field.name)}, here {getattr(config, field.name)}"
            for field in dataclasses.fields(ModelConfig)
            if getattr(same, field.name) != getattr(config, field.name)
        ]
        raise ValueError(
            f"params.yaml.train.begin_with: {source} is built differently: {'; '.join(differing)}. Set model.preset to "
            f"its own, modulation.rank: {given.config.rank} and modulation.layers: [{', '.join(given.config.layers)}]"
        )
    network = new_network(config, learn)
    state, theirs = network.state_dict(), given.state_dict()
    known = [task for task in config.tasks if task in given.config.tasks]
    for name, value in theirs.items():
        if not name.endswith((".task_up", ".task_down")):
            state[name] = value
            continue
        for task in known:
            state[name][network.task_index(task)] = value[given.task_index(task)]
    network.load_state_dict(state)
    return network
