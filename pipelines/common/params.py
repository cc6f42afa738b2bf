"""params.yaml as frozen dataclasses: strict, typed, without defaults. The only reader of that file."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.common.typed_yaml import ParamsError, load_yaml, unknown

PARAMS_FILE = Path("params.yaml")

# Rules that a type cannot state, by block.
ABOVE_ZERO = {
    "prepare": "tile stride row_group_rows",
    "synthesize": "variants tiles_per_shard row_group_rows",
    "ingest": "crop decode_threads prefetch_steps",
    "understand": "sentence_steps sentences_per_step learning_rate clean_tiles tiles tile_steps visible",
    "analyze": "common_steps bias_steps learning_rate tiles",
    "train": "steps groups_per_step learning_rate bias_learning_rate clip_norm log_every validate_every "
    "validate_tiles checkpoint_every",
    "evaluate": "tiles",
    "promote": "megabytes seconds_per_megapixel",
    "diffusion": "crop intervals rank steps batch learning_rate bias_learning_rate clip_norm samples sampling_steps "
    "log_every checkpoint_every",
}
BETWEEN = {
    "prepare": {
        "val_share": (0, 1),
        "max_flat_share": (0, 1),
        "max_bad_share": (0, 1),
        "flat_std": (0, 255),
        "duplicate_bits": (0, 64),
    },
    "ingest": {"left_alone": (0, 1)},
    "analyze": {"keep": (0.01, 1), "energy": (0.01, 1)},
    "understand": {"clean_share": (0, 0.999)},
    "modulation": {"rank": (1, 10**6)},
    "compress": {"rank": (1, 10**6)},
    "train": {"warmup_steps": (0, 10**9), "weight_decay": (0, 1), "ema_decay": (0, 1)},
    "ray": {
        "cpus_per_worker": (1, 10**6),
        "gpus_per_worker": (0, 10**3),
        "storage_patience": (0, 10**9),
        "max_failures": (-1, 10**6),
        "resize_seconds": (1, 10**9),
        "groups_per_read": (1, 10**6),
    },
    "promote": {
        "psnr_loss": (0, 100),
        "mean_loss": (0, 100),
        "accuracy_loss": (0, 1),
        "clean_change": (0, 255),
        "damage_loss": (0, 100),
        "growth": (1, 10**6),
    },
    "promote.floors": {
        "gain": (-100, 100),
        "mean_gain": (-100, 100),
        "instructions": (0, 1),
        "seen": (0, 1),
        "clean": (0, 1),
    },
    "diffusion": {"warmup_steps": (0, 10**9), "weight_decay": (0, 1), "ema_decay": (0, 1)},
}
PREVIOUS = "previous"  # the alias of the version that was champion before


@dataclass(frozen=True)
class Task:
    """One entry of the task table."""

    share: int  # samples of this task in every group of a training batch
    weight: float  # of its part in the loss
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
class Understand:
    """The reader of instructions and the estimator of what a picture shows."""

    sentence_steps: int
    sentences_per_step: int
    learning_rate: float
    clean_tiles: int
    tiles: int
    tile_steps: int
    visible: float
    clean_share: float


@dataclass(frozen=True)
class Ingest:
    """How shards become training batches."""

    crop: int
    left_alone: float
    decode_threads: int
    prefetch_steps: int


@dataclass(frozen=True)
class Model:
    """The backbone."""

    preset: Literal["tiny", "small", "base"]


@dataclass(frozen=True)
class Modulation:
    """The task biases; `auto` is what the analysis finds."""

    rank: int | Literal["auto"]
    layers: tuple[str, ...] | Literal["auto"]


@dataclass(frozen=True)
class Analyze:
    """Sensitivity and rank analysis."""

    candidates: tuple[str, ...]
    common_steps: int
    bias_steps: int
    learning_rate: float
    tiles: int
    keep: float
    energy: float


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
    """Where and with what training runs; `RAY_ADDRESS` in the environment goes before `address`."""

    address: str
    workers: int | tuple[int, int]
    cpus_per_worker: int | Literal["auto"]
    gpus_per_worker: int | Literal["auto"]
    storage: str
    storage_patience: float
    max_failures: int
    resize_seconds: float
    groups_per_read: int


@dataclass(frozen=True)
class Compress:
    """Truncation of the task biases; `auto` keeps the rank they were trained with."""

    rank: int | Literal["auto"]


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
class Floors:
    """What a candidate needs where there is no champion, or where the champion lacks the task."""

    gain: float
    mean_gain: float
    instructions: float
    seen: float
    clean: float


@dataclass(frozen=True)
class Promote:
    """How much worse than the champion a candidate may be, and what it may never be."""

    alias: str
    psnr_loss: float
    mean_loss: float
    accuracy_loss: float
    clean_change: float
    damage_loss: float
    megabytes: float
    seconds_per_megapixel: float
    growth: float
    floors: Floors


@dataclass(frozen=True)
class Diffusion:
    """The optional diffusion denoiser, with biases by interval of noise level."""

    model: str
    crop: int
    channels: tuple[int, ...]
    intervals: int
    rank: int
    layers: tuple[str, ...]
    prediction: Literal["epsilon", "v_prediction"]
    min_snr: float | Literal["none"]
    steps: int
    batch: int
    learning_rate: float
    bias_learning_rate: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    ema_decay: float
    samples: int
    sampling_steps: int
    log_every: int
    checkpoint_every: int


@dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    seed: int
    tasks: dict[str, Task]
    prepare: Prepare
    synthesize: Synthesize
    understand: Understand
    ingest: Ingest
    model: Model
    modulation: Modulation
    analyze: Analyze
    train: Train
    ray: Ray
    compress: Compress
    evaluate: Evaluate
    register: Register
    promote: Promote
    diffusion: Diffusion


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`; a ParamsError names the first key that is missing, unknown or ill-typed."""
    params = load_yaml(path, Params)
    _check(params, str(path))
    return params


def _check(params: Params, where: str) -> None:
    """The rules that a type cannot state."""
    if not params.tasks:
        raise ParamsError(f"{where}.tasks: expected at least one task, got none")
    for name, task in params.tasks.items():
        if not name.isidentifier():
            raise ParamsError(f"{where}.tasks.{name}: expected a name of letters, digits and '_'")
        _positive(f"{where}.tasks.{name}", task, "share", "weight")
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
                f"{where}.evaluate.benchmarks[{number}].task: " + unknown("task", benchmark.task, params.tasks)
            )
    for block, names in ABOVE_ZERO.items():
        _positive(f"{where}.{block}", getattr(params, block), *names.split())
    for block, bounds in BETWEEN.items():
        for name, (low, high) in bounds.items():
            value = getattr(operator.attrgetter(block)(params), name)
            if value != "auto" and not low <= value <= high:  # false for not-a-number too
                raise ParamsError(f"{where}.{block}.{name}: expected {low} to {high}, got {value}")
    _check_workers(f"{where}.ray.workers", params.ray.workers)
    if params.promote.alias in (params.register.alias, PREVIOUS):
        raise ParamsError(
            f"{where}.promote.alias: expected another name than register.alias and '{PREVIOUS}', "
            f"got '{params.promote.alias}'"
        )
    if not params.modulation.layers:
        raise ParamsError(f"{where}.modulation.layers: expected at least one name pattern, got none")
    if params.ingest.crop > params.prepare.tile:
        raise ParamsError(
            f"{where}.ingest.crop: expected at most prepare.tile = {params.prepare.tile}, got {params.ingest.crop}"
        )


def _check_workers(where: str, workers: int | tuple[int, int]) -> None:
    if isinstance(workers, tuple) and not 1 <= workers[0] <= workers[1]:
        raise ParamsError(f"{where}: expected [fewest, most] with 1 <= fewest <= most, got {list(workers)}")
    if isinstance(workers, int) and not 0 <= workers <= 10**6:
        raise ParamsError(f"{where}: expected 0 to 1000000, got {workers}")


def _positive(where: str, block: Any, *names: str) -> None:
    for name in names:
        if not getattr(block, name) > 0:  # true for not-a-number too
            raise ParamsError(f"{where}.{name}: expected a number above 0, got {getattr(block, name)}")
