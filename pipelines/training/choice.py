"""What the model is made of and how it is trained: params.yaml, with the layers and rank that `analyze` chose."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ipt.network.config import ModelConfig, preset_config
from ipt.training.fit import TrainingSettings
from pipelines.common.files import write_json
from pipelines.common.params import Params
from pipelines.common.paths import CHOICE


@dataclass(frozen=True)
class Choice:
    """The layers that get task biases, and the biases' rank."""

    rank: int
    layers: tuple[str, ...]


def write_choice(choice: Choice, path: Path = CHOICE) -> None:
    """Write it where the other stages look for it."""
    write_json(path, dataclasses.asdict(choice))


def read_choice(path: Path = CHOICE) -> Choice:
    """What `write_choice` wrote; a FileNotFoundError or ValueError says how to make it."""
    try:
        values = json.loads(path.read_text())
        return Choice(int(values["rank"]), tuple(values["layers"]))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no choice of layers and rank; make it with `dvc repro analyze`") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected rank and layers ({error!r}); make it again: `dvc repro -f analyze`"
        ) from error


def model_config(params: Params, choice: Choice) -> ModelConfig:
    """The model that the params and the choice describe."""
    return preset_config(params.model.preset, tuple(params.tasks), choice.rank, choice.layers)


def training_settings(params: Params, steps: int, bf16: bool) -> TrainingSettings:
    """The numbers of a training of `steps`; the warm-up is at most a tenth of it."""
    values = {
        name: value
        for name, value in dataclasses.asdict(params.train).items()
        if name in {field.name for field in dataclasses.fields(TrainingSettings)}
    }
    own = {
        "steps": steps,
        "warmup_steps": min(params.train.warmup_steps, steps // 10),
        # Decay would change the biases of tasks that are not to learn.
        "weight_decay": params.train.weight_decay if params.train.learn == "all" else 0.0,
        "decay_steps": None if params.train.decay_steps == "all" else params.train.decay_steps,
        "task_weights": tuple(task.weight for task in params.tasks.values()),
        "bf16": bf16,
    }
    return TrainingSettings(**values | own)
