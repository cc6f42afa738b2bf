"""The only reader and writer of weights: a folder with config.json and model.safetensors, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ipt.model import InstructIPT
from ipt.network.config import ModelConfig
from ipt.network.state import misfits

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HALVED = ("task_up", "task_down", "pieces.weight")  # last names of the tensors that bear half precision


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used; the message says what is wrong with it."""


def save_model(model: InstructIPT, folder: Path, *, half: bool = False) -> None:
    """Write config.json and model.safetensors into `folder`, which is made when absent.

    `half` stores the task biases and the pieces of words in half precision (11 significant bits); they load as float32
    all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
    save_weights(model, folder / WEIGHTS, half=HALVED if half else ())


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> InstructIPT:
    """Build the model that `folder` describes and load its weights; ready for inference.

    Raises CheckpointError where a file is missing or damaged or the weights do not fit the config.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: expected a checkpoint folder with {CONFIG} and {WEIGHTS}; no {name}")
    try:
        model = InstructIPT(ModelConfig.from_dict(json.loads((folder / CONFIG).read_text())))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    load_weights(model, folder / WEIGHTS)
    return model.to(device).eval()


def save_weights(model: nn.Module, path: Path, *, half: tuple[str, ...] = ()) -> None:
    """Write the state of any module as safetensors; tensors whose last name is in `half` in half precision."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file({name: value.half() if name.endswith(half) else value for name, value in weights.items()}, path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote; a CheckpointError names what is missing, left over or of another shape."""
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error
    if problems := misfits({name: value.shape for name, value in model.state_dict().items()}, weights):
        raise CheckpointError(f"{path}: weights do not fit the config: {problems}")
    model.load_state_dict(weights)
