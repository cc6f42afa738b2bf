"""The only reader and writer of weights: safetensors, nothing pickled; knows no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Size, Tensor, nn

NAMED = 5  # problems that a message names


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong with it."""


def save_weights(network: nn.Module, path: Path, *, half: Callable[[str], bool] = lambda name: False) -> None:
    """Write the state of any network as safetensors, in half precision where `half` of a tensor's name is true."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    # Not safetensors' own save_file: killed, that leaves a file beside `path` which nobody knows.
    path.write_bytes(save({name: value.half() if half(name) else value for name, value in weights.items()}))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes by name of the tensors that `save_weights` wrote; a CheckpointError where it is no such file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error


def load_weights(network: nn.Module, path: Path, *, part: str = "") -> None:
    """Load what `save_weights` wrote; a CheckpointError names what is missing, left over, of another shape or NaN.

    Of tensors in the file only those whose names begin with `part` are looked at.
    """
    try:
        weights = {name: value for name, value in load_file(path).items() if name.startswith(part)}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error
    if problems := misfits({name: value.shape for name, value in network.state_dict().items()}, weights):
        raise CheckpointError(f"{path}: weights do not fit the config: {problems}")
    if wrong := [name for name, value in weights.items() if not _is_finite(value)]:
        raise CheckpointError(f"{path}: weights that are no finite numbers: {', '.join(wrong[:NAMED])}")
    network.load_state_dict(weights)


def _is_finite(value: Tensor) -> bool:
    return value.is_floating_point() and bool(value.float().isfinite().all())  # of 8 bits torch does not say


def misfits(expected: Mapping[str, Size], given: Mapping[str, Tensor]) -> str:
    """What is missing, unexpected or of another shape, the first few by name; empty where all fits."""
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    problems += [
        f"{name}: expected shape {tuple(expected[name])}, got {tuple(value.shape)}"
        for name, value in given.items()
        if name in expected and value.shape != expected[name]
    ]
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return "; ".join(problems[:NAMED]) + more
