"""params.yaml as frozen dataclasses: strict, typed, without defaults. The only reader of that file."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS_FILE = Path("params.yaml")

# Rules that a type cannot state, by block.
ABOVE_ZERO = {
    "prepare": "tile stride row_group_rows",
    "synthesize": "variants tiles_per_shard row_group_rows",
    "ingest": "crop decode_threads prefetch_steps",
    "modulation": "rank",
    "train": "steps groups_per_step learning_rate bias_learning_rate clip_norm log_every validate_every "
    "validate_tiles checkpoint_every",
    "compress": "rank",
    "evaluate": "tiles",
}
BETWEEN = {
    "prepare": {
        "val_share": (0, 1),
        "max_flat_share": (0, 1),
        "max_bad_share": (0, 1),
        "flat_std": (0, 255),
        "duplicate_bits": (0, 64),
    },
    "train": {"warmup_steps": (0, 10**9), "weight_decay": (0, 1), "ema_decay": (0, 1)},
    "ray": {
        "workers": (0, 10**6),
        "cpus_per_worker": (1, 10**6),
        "gpus_per_worker": (0, 10**3),
        "max_failures": (0, 10**6),
    },
}


class ParamsError(ValueError):
    """A value of params.yaml that cannot be used; the message says where, what was expected and what came."""


@dataclass(frozen=True)
class Task:
    """One entry of the task table."""

    share: int  # samples of this task in every group of a training batch
    recipe: list  # steps for degradations.recipe.degrade; checked by the stage that uses it
    instructions: tuple[str, ...]  # what people say when they want this task


@dataclass(frozen=True)
class Folder:
    """Every image file below `path`, at each of `scales`."""

    path: str
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Builtin:
    """The colour photographs that come with scikit-image and scikit-learn, at each of `scales`."""

    scales: tuple[float, ...]


@dataclass(frozen=True)
class DeadLeaves:
    """`images` procedural square pictures of `size` pixels."""

    images: int
    size: int


@dataclass(frozen=True)
class Source:
    """Where clean images come from: exactly one of the three."""

    folder: Folder | None
    builtin: Builtin | None
    dead_leaves: DeadLeaves | None


@dataclass(frozen=True)
class Prepare:
    """Clean tiles (units stand beside the values in params.yaml)."""

    sources: tuple[Source, ...]
    tile: int
    stride: int
    val_share: float
    flat_std: float
    max_flat_share: float
    duplicate_bits: int
    max_bad_share: float
    row_group_rows: int


@dataclass(frozen=True)
class Synthesize:
    """Degraded shards."""

    variants: int
    tiles_per_shard: int
    row_group_rows: int


@dataclass(frozen=True)
class Ingest:
    """How shards become training batches."""

    crop: int
    decode_threads: int
    prefetch_steps: int


@dataclass(frozen=True)
class Model:
    """The backbone."""

    preset: Literal["tiny", "small", "base"]


@dataclass(frozen=True)
class Modulation:
    """The task biases."""

    rank: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Train:
    """Synchronous training of backbone and task biases."""

    steps: int
    groups_per_step: int
    learning_rate: float
    bias_learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    ema_decay: float
    precision: Literal["auto", "fp32", "bf16"]
    log_every: int
    validate_every: int
    validate_tiles: int
    checkpoint_every: int


@dataclass(frozen=True)
class Ray:
    """Where and with what training runs; `RAY_ADDRESS` in the environment names a cluster."""

    workers: int
    cpus_per_worker: int | Literal["auto"]
    gpus_per_worker: int | Literal["auto"]
    storage: str
    max_failures: int


@dataclass(frozen=True)
class Compress:
    """Truncation of the task biases."""

    rank: int


@dataclass(frozen=True)
class Benchmark:
    """A folder with `clean/` and `degraded/`, or with `clean/` alone and Gaussian noise of `sigma` grey levels."""

    name: str
    path: str
    task: str
    sigma: float | None


@dataclass(frozen=True)
class Evaluate:
    """Measuring on held-out tiles and on benchmark folders."""

    tiles: int
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True)
class Register:
    """The MLflow experiment and registered model."""

    experiment: str
    model: str
    alias: str


@dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    seed: int
    tasks: dict[str, Task]
    prepare: Prepare
    synthesize: Synthesize
    ingest: Ingest
    model: Model
    modulation: Modulation
    train: Train
    ray: Ray
    compress: Compress
    evaluate: Evaluate
    register: Register


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`; a ParamsError names the first key that is missing, unknown or ill-typed."""
    try:
        # ruamel reads YAML 1.2 as DVC does: 2e-4 is a number (PyYAML makes it text).
        tree = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file in {Path.cwd()}; run from the top of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML: {error}") from None
    params = _build(Params, tree, str(path))
    _check(params, str(path))
    return params


def _check(params: Params, where: str) -> None:
    """The rules that a type cannot state."""
    if not params.tasks:
        raise ParamsError(f"{where}.tasks: expected at least one task, got none")
    for name, task in params.tasks.items():
        if not name.isidentifier():
            raise ParamsError(f"{where}.tasks.{name}: expected a name of letters, digits and '_'")
        _positive(f"{where}.tasks.{name}", task, "share")
        if not task.instructions:
            raise ParamsError(f"{where}.tasks.{name}.instructions: expected at least one sentence, got none")
    for number, source in enumerate(params.prepare.sources):
        named = [field.name for field in dataclasses.fields(source) if getattr(source, field.name) is not None]
        if len(named) != 1:
            raise ParamsError(
                f"{where}.prepare.sources[{number}]: expected exactly one of folder, builtin, "
                f"dead_leaves; got {named or 'none'}"
            )
    for number, benchmark in enumerate(params.evaluate.benchmarks):
        if benchmark.task not in params.tasks:
            raise ParamsError(
                f"{where}.evaluate.benchmarks[{number}].task: " + _unknown("task", benchmark.task, params.tasks)
            )
    for block, names in ABOVE_ZERO.items():
        _positive(f"{where}.{block}", getattr(params, block), *names.split())
    for block, bounds in BETWEEN.items():
        for name, (low, high) in bounds.items():
            value = getattr(getattr(params, block), name)
            if value != "auto" and not low <= value <= high:  # false for not-a-number too
                raise ParamsError(f"{where}.{block}.{name}: expected {low} to {high}, got {value}")
    if not params.modulation.layers:
        raise ParamsError(f"{where}.modulation.layers: expected at least one name pattern, got none")
    if params.ingest.crop > params.prepare.tile:
        raise ParamsError(
            f"{where}.ingest.crop: expected at most prepare.tile = {params.prepare.tile}, got {params.ingest.crop}"
        )


def _positive(where: str, block: Any, *names: str) -> None:
    for name in names:
        if not getattr(block, name) > 0:  # true for not-a-number too
            raise ParamsError(f"{where}.{name}: expected a number above 0, got {getattr(block, name)}")


def _unknown(what: str, name: Any, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} '{name}'; {hint}"


def _build(kind: Any, value: Any, where: str) -> Any:
    """Turn a plain YAML value into `kind`, a dataclass or a type of the few forms used above."""
    if dataclasses.is_dataclass(kind):
        return _build_block(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ParamsError(f"{where}: expected one of {', '.join(arguments)}; got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _build_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: expected a list, got {value!r}")
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ParamsError(f"{where}: expected a block of named entries, got {value!r}")
        return {str(key): _build(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParamsError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _build_union(kinds: tuple, value: Any, where: str) -> Any:
    if types.NoneType in kinds:
        return None if value is None else _build(kinds[0], value, where)
    problems = []
    for kind in kinds:
        try:
            return _build(kind, value, where)
        except ParamsError as error:
            problems.append(str(error).removeprefix(f"{where}: "))
    raise ParamsError(f"{where}: {', or '.join(problems)}" if len(problems) > 1 else f"{where}: {problems[0]}")


def _build_block(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ParamsError(f"{where}: expected a block with {', '.join(kind.__annotations__)}; got {value!r}")
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise ParamsError(f"{where}.{key}: {_unknown('key', key, hints)}")
    optional = {name for name, hint in hints.items() if types.NoneType in typing.get_args(hint)}
    for name in hints:
        if name not in value and name not in optional:
            raise ParamsError(f"{where}.{name}: missing; expected {_name(hints[name])}")
    return kind(**{name: _build(hint, value.get(name), f"{where}.{name}") for name, hint in hints.items()})


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
