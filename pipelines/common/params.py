"""params.yaml as frozen dataclasses: strict, typed, without defaults. The only reader of that file.

Types and ranges stand in the annotations; after a change of them, `make schema`. They are checked where the file is
read, not where code makes such a dataclass.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipelines.common.params_errors import Place, lines, problems, unknown
from pipelines.common.plain_yaml import read_plain

PARAMS_FILE = Path("params.yaml")
PREVIOUS = "previous"  # the alias of the version that was champion before

Count = Annotated[int, Field(gt=0)]
Several = Annotated[int, Field(ge=1, le=10**6)]
Steps = Annotated[int, Field(ge=0, le=10**9)]
Rank = Annotated[int, Field(ge=0, le=10**6)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
MostOf = Annotated[float, Field(ge=0.01, le=1)]  # a share that must leave something
GreyLevels = Annotated[float, Field(ge=0, le=255)]
Loss = Annotated[float, Field(ge=0, le=100)]  # dB
Gain = Annotated[float, Field(ge=-100, le=100)]  # dB
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Auto = Literal["auto"]


class ParamsError(ValueError):
    """What cannot be used in params.yaml: a line for each place, with what was expected and what came."""


@dataclass(frozen=True)
class Task:
    """One entry of the task table."""

    share: Count
    """Samples of this task in every group of a training batch."""
    weight: Positive
    """Of its part in the loss."""
    recipe: list
    """Steps for degradations.recipe.degrade; checked by the stage that uses it."""
    instructions: Names
    """What people say when they want this task."""


@dataclass(frozen=True)
class Folder:
    """Every image file below `path`, a folder or a URI such as s3://bucket/photos, at each of `scales`."""

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

    folder: Folder | None = None
    builtin: Builtin | None = None
    dead_leaves: DeadLeaves | None = None


@dataclass(frozen=True)
class Prepare:
    """Clean tiles (units stand beside the values in params.yaml)."""

    sources: tuple[Source, ...]
    tile: Count
    stride: Count
    val_share: Share
    flat_std: GreyLevels
    max_flat_share: Share
    duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    max_bad_share: Share
    row_group_rows: Count


@dataclass(frozen=True)
class Synthesize:
    """Degraded shards."""

    variants: Count
    tiles_per_shard: Count
    row_group_rows: Count


@dataclass(frozen=True)
class Understand:
    """The reader of instructions and the estimator of what a picture shows."""

    readers: Annotated[int, Field(ge=1, le=16)]  # as many as a checkpoint may have
    sentence_steps: Count
    sentences_per_step: Count
    learning_rate: Positive
    blind: Literal["all"] | Names
    """Tasks that a picture may ask for without words."""
    clean_tiles: Count
    tiles: Count
    tile_steps: Count
    visible: Positive
    clean_share: Annotated[float, Field(ge=0, le=0.999)]


@dataclass(frozen=True)
class Ingest:
    """How shards become training batches."""

    crop: Count
    left_alone: Share


@dataclass(frozen=True)
class Model:
    """The backbone."""

    preset: Literal["tiny", "small", "base"]


@dataclass(frozen=True)
class Modulation:
    """The task biases; `auto` is what the analysis finds."""

    rank: Several | Auto
    layers: Names | Auto


@dataclass(frozen=True)
class Analyze:
    """Sensitivity and rank analysis."""

    candidates: tuple[str, ...]
    common_steps: Count
    bias_steps: Count
    groups_per_step: Count
    learning_rate: Positive
    tiles: Count
    least: Positive
    energy: MostOf
    bias_share: Positive


@dataclass(frozen=True)
class Train:
    """Synchronous training of backbone and task biases."""

    steps: Count
    groups_per_step: Count
    learning_rate: Positive
    bias_learning_rate: Positive
    warmup_steps: Steps
    decay_steps: Steps | Literal["all"]
    weight_decay: Share
    frequency_weight: NotNegative
    clip_norm: Positive
    ema_decay: Share
    precision: Literal["auto", "fp32", "bf16"]
    log_every: Count
    validate_every: Count
    validate_tiles: Count
    checkpoint_every: Count
    begin_with: str | None
    learn: Literal["all", "biases"] | tuple[str, ...]


@dataclass(frozen=True)
class Decay:
    """A finished model out of a run that goes on: so many steps more, in which the learning rates fall."""

    steps: Count
    groups_per_step: Count
    crop: Count


@dataclass(frozen=True)
class Ray:
    """Where and with what training runs; `RAY_ADDRESS` in the environment goes before `address`."""

    address: str
    workers: Annotated[int, Field(ge=0, le=10**6)] | tuple[int, int]
    cpus_per_worker: Several | Auto
    gpus_per_worker: Annotated[int, Field(ge=0, le=10**3)] | Auto
    storage: str
    storage_patience: Annotated[float, Field(ge=0, le=10**9)]
    max_failures: Annotated[int, Field(ge=-1, le=10**6)]
    resize_seconds: Annotated[float, Field(ge=1, le=10**9)]
    groups_per_read: Several
    samples_at_once: Several | Literal["all"]


@dataclass(frozen=True)
class Compress:
    """Truncation of the task biases; `auto` keeps the rank they were trained with."""

    rank: Several | Auto


@dataclass(frozen=True)
class RealPairs:
    """A folder with `clean/` and `degraded/`, or with `clean/` alone and Gaussian noise of `sigma` grey levels."""

    name: str
    path: str
    task: str
    sigma: float | None = None


@dataclass(frozen=True)
class Evaluate:
    """Measuring on held-out tiles and on real pairs."""

    tiles: Count
    real_pairs: tuple[RealPairs, ...]


@dataclass(frozen=True)
class Register:
    """The MLflow experiment and registered model."""

    experiment: str
    model: str
    alias: str
    licences: str | None  # of the photographs that were learnt from, for the model card


@dataclass(frozen=True)
class Floors:
    """What a candidate needs where there is no champion, or where the champion lacks the task."""

    gain: Gain
    mean_gain: Gain
    instructions: Share
    seen: Share
    clean: Share


@dataclass(frozen=True)
class Promote:
    """How much worse than the champion a candidate may be, and what it may never be."""

    alias: str
    psnr_loss: Loss
    mean_loss: Loss
    accuracy_loss: Share
    clean_change: GreyLevels
    damage_loss: Loss
    megabytes: Positive
    seconds_per_megapixel: Positive
    growth: Annotated[float, Field(ge=1, le=10**6)]
    floors: Floors


@dataclass(frozen=True)
class Diffusion:
    """The optional diffusion denoiser, with biases by interval of noise level."""

    model: str
    start: str
    """scratch, or the folder of a diffusers pipeline that is gone on from."""
    learn: Literal["all", "biases"]
    crop: Count
    channels: tuple[int, ...]
    intervals: Count
    cut: Literal["equal", "optimal"]
    rank: Rank | tuple[Rank, ...]
    """Of every interval, or one for each, the cleanest first."""
    outside: Annotated[float, Field(ge=0, le=0.9)]
    layers: tuple[str, ...]
    prediction: Literal["epsilon", "v_prediction"]
    min_snr: float | Literal["none"]
    steps: Count
    batch: Count
    learning_rate: Positive
    bias_learning_rate: Positive
    warmup_steps: Steps
    weight_decay: Share
    clip_norm: Positive
    ema_decay: Share
    samples: Count
    sampling_steps: Count
    log_every: Count
    checkpoint_every: Count


@dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    # Holds in the blocks below too: pydantic hands it on to dataclasses without one of their own.
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    seed: int
    tasks: Annotated[dict[str, Task], Field(min_length=1)]
    prepare: Prepare
    synthesize: Synthesize
    understand: Understand
    ingest: Ingest
    model: Model
    modulation: Modulation
    analyze: Analyze
    train: Train
    decay: Decay
    ray: Ray
    compress: Compress
    evaluate: Evaluate
    register: Register
    promote: Promote
    diffusion: Diffusion


@functools.cache
def adapter() -> TypeAdapter[Params]:
    """What checks a params.yaml and knows its JSON Schema; built when first asked for, not at import."""
    return TypeAdapter(Params)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`; a ParamsError tells all that is missing, unknown, of another type or out of range.

    Rules between values are looked at once each value alone is right, and then told all together too.
    """
    try:
        tree = read_plain(path)
    except ValueError as error:
        raise ParamsError(str(error)) from None
    try:
        # As JSON: pydantic, strict with Python's own values, takes no list for a tuple and no dict for a dataclass.
        params = adapter().validate_json(json.dumps(tree))
    except ValidationError as error:
        found = problems(error.errors(include_url=False), adapter().json_schema(), tree)
        raise ParamsError(lines(found, path, tree)) from None
    if found := dict(broken_rules(params)):
        raise ParamsError(lines(found, path, tree))
    return params


def broken_rules(params: Params) -> Iterator[tuple[Place, str]]:
    """Each place where a rule is broken that no type can state, with what was expected and what came."""
    for name in params.tasks:
        if not name.isidentifier():
            yield ("tasks", name), "expected a name of letters, digits and '_'"
    for number, source in enumerate(params.prepare.sources):
        kinds = [field.name for field in dataclasses.fields(source)]
        named = [kind for kind in kinds if getattr(source, kind) is not None]
        if len(named) != 1:
            what = f"expected exactly one of {', '.join(kinds)}; got {named or 'none'}"
            yield ("prepare", "sources", number), what
    for block, crop in (("ingest", params.ingest.crop), ("decay", params.decay.crop)):
        if crop > params.prepare.tile:
            yield (block, "crop"), f"expected at most prepare.tile = {params.prepare.tile}, got {crop}"
    learn = params.train.learn
    if learn != "all" and params.train.begin_with is None:
        yield ("train", "learn"), "expected all where train.begin_with is null: random weights have to learn"
    if not learn:
        yield ("train", "learn"), "expected all, biases or at least one task, got an empty list"
    for block, key, chosen in (("train", "learn", learn), ("understand", "blind", params.understand.blind)):
        for number, task in enumerate(() if isinstance(chosen, str) else chosen):
            if task not in params.tasks:
                yield (block, key, number), unknown("task", task, params.tasks)
    workers = params.ray.workers
    if isinstance(workers, tuple) and not 1 <= workers[0] <= workers[1]:
        yield ("ray", "workers"), f"expected [fewest, most] with 1 <= fewest <= most, got {list(workers)}"
    for number, pairs in enumerate(params.evaluate.real_pairs):
        if pairs.task not in params.tasks:
            yield ("evaluate", "real_pairs", number, "task"), unknown("task", pairs.task, params.tasks)
    yield from _broken_diffusion(params.diffusion)
    alias = params.promote.alias
    if alias in (params.register.alias, PREVIOUS):
        what = f"expected another name than register.alias and '{PREVIOUS}', got '{alias}'"
        yield ("promote", "alias"), what


def _broken_diffusion(diffusion: Diffusion) -> Iterator[tuple[Place, str]]:
    """Those of the optional denoiser."""
    rank, intervals = diffusion.rank, diffusion.intervals
    if not isinstance(rank, int) and (len(rank) != intervals or not any(rank)):
        what = f"expected one number, or one for each of {intervals} intervals and not all 0; got {list(rank)}"
        yield ("diffusion", "rank"), what
    if diffusion.learn == "biases" and (diffusion.start == "scratch" or rank == 0):
        what = "expected all where diffusion.start is scratch or diffusion.rank is 0: something has to learn"
        yield ("diffusion", "learn"), what
    if diffusion.outside and (intervals == 1 or rank == 0):
        what = f"expected 0 where no interval has biases beside another's, got {diffusion.outside}"
        yield ("diffusion", "outside"), what
