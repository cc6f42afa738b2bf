"""A trained network on disk: a folder with config.json, model.safetensors and their checksums, nothing pickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypeVar

import torch

from ipt.files import replace_file
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.weights import CheckpointError, load_weights, save_weights, tensor_shapes

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_SMALL = 30_000  # weights of a network that is built whatever its file holds
CHECKSUMS = "SHA256SUMS"  # in the format of `sha256sum --check`
Network = TypeVar("Network", bound=TaskNetwork)


def save_model(network: TaskNetwork, folder: Path, *, half: bool = False) -> None:
    """Write config.json, model.safetensors and SHA256SUMS into `folder`, which is made when absent.

    `half` stores what `bears_half` in half precision (11 significant bits); it loads as float32 all the same. A model
    that is there stays until the new one is written whole. Killed while the three get their names, the checksums of
    the new one first, it leaves a folder that is refused when loaded.
    """
    with (
        replace_file(folder / CONFIG) as config,
        replace_file(folder / WEIGHTS) as weights,
        replace_file(folder / CHECKSUMS) as sums,
    ):
        config.write_text(json.dumps(network.config.to_dict(), indent=2) + "\n")
        save_weights(network, weights, half=bears_half if half else lambda name: False)
        sums.write_text(f"{sha256(config)}  {CONFIG}\n{sha256(weights)}  {WEIGHTS}\n")


def bears_half(name: str) -> bool:
    """Whether the tensor of this name loses nothing that counts in half precision: the network, what reads words."""
    return name.startswith(("backbone.", "instruction."))


def load_checkpoint(kind: type[Network], folder: Path, device: torch.device | str = "cpu") -> Network:
    """Build the network of this `kind` that `folder` describes and load its weights; ready for inference.

    Raises CheckpointError where a file is missing, damaged or not the one whose checksum is beside it, or the weights
    do not fit the config. A folder without SHA256SUMS (of earlier versions) is not checked for the second.
    """
    network = _built(kind, folder)
    network.make_room(tensor_shapes(folder / WEIGHTS))
    load_weights(network, folder / WEIGHTS)
    return network.to(device).eval()


def _built(kind: type[Network], folder: Path) -> Network:
    """The network that a checkpoint's config describes, without its weights, whose files have been checked."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: expected a checkpoint folder with {CONFIG} and {WEIGHTS}; no {name}")
    if (folder / CHECKSUMS).is_file():
        check_sums(folder)
    try:
        config = ModelConfig.from_dict(json.loads((folder / CONFIG).read_text()))
        room = max(_SMALL, (folder / WEIGHTS).stat().st_size // 2)  # in half precision
        if config.least_weights > room:  # a few bytes could ask for all memory
            raise ValueError(f"a network of at least {config.least_weights} weights; {WEIGHTS} has room for {room}")
        return kind(config)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error


def load_network(folder: Path) -> TaskNetwork:
    """The network alone of a checkpoint, which may hold more; ready for inference, errors as of `load_checkpoint`."""
    network = _built(TaskNetwork, folder)
    load_weights(network, folder / WEIGHTS, part="backbone.")
    return network.eval()


def check_sums(folder: Path) -> None:
    """Raise CheckpointError unless every file that `folder`/SHA256SUMS names is there and has that sum."""
    for line in (folder / CHECKSUMS).read_text(errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        if name not in (CONFIG, WEIGHTS):
            raise CheckpointError(f"{folder / CHECKSUMS}: expected lines 'sum  {CONFIG}' or {WEIGHTS}, got {line!r}")
        if (found := sha256(folder / name)) != expected:
            raise CheckpointError(
                f"{folder / name}: its SHA-256 is {found[:12]}..., {CHECKSUMS} beside it says {expected[:12]}...: "
                "damaged or changed; fetch or install it again"
            )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
