"""A trained network on disk: a folder with config.json and model.safetensors, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch

from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.weights import CheckpointError, load_weights, save_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HALVED = ("task_up", "task_down", "pieces.weight")  # last names of the tensors that bear half precision

Network = TypeVar("Network", bound=TaskNetwork)


def save_model(network: TaskNetwork, folder: Path, *, half: bool = False) -> None:
    """Write config.json and model.safetensors into `folder`, which is made when absent.

    `half` stores the task biases and the pieces of words in half precision (11 significant bits); they load as float32
    all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(network.config.to_dict(), indent=2) + "\n")
    save_weights(network, folder / WEIGHTS, half=HALVED if half else ())


def load_checkpoint(kind: type[Network], folder: Path, device: torch.device | str = "cpu") -> Network:
    """Build the network of this `kind` that `folder` describes and load its weights; ready for inference.

    Raises CheckpointError where a file is missing or damaged or the weights do not fit the config.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: expected a checkpoint folder with {CONFIG} and {WEIGHTS}; no {name}")
    try:
        network = kind(ModelConfig.from_dict(json.loads((folder / CONFIG).read_text())))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    load_weights(network, folder / WEIGHTS)
    return network.to(device).eval()
