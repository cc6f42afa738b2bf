"""What a model is made of: saved beside the weights as config.json, so that a checkpoint describes itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

CLEAN = "clean"  # beside the tasks, what an image may look like


@dataclass(frozen=True)
class ModelConfig:
    """Backbone, tasks and task biases; raises ValueError where the fields contradict one another."""

    tasks: tuple[str, ...]  # in the order of the stacked task biases
    width: int  # channels of the first level; doubled at each level below
    patch: int  # side in pixels of the patch that is one position of the first level
    blocks: tuple[int, ...]  # transformer blocks at each level, from fine to coarse
    attention_levels: int  # so many of the coarsest levels attend; at finer ones, gated convolutions mix
    head_width: int  # channels of one attention head
    expansion: float  # channels inside the feed-forward part, as a multiple of the level's
    rank: int  # of each task bias
    layers: tuple[str, ...]  # name patterns of the modulated layers

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks: expected one or more different names, got {self.tasks}")
        if CLEAN in self.tasks:
            raise ValueError(
                f"tasks: '{CLEAN}' is what an image is called that needs none of them; choose another name"
            )
        for name in ("width", "patch", "head_width", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not self.layers:
            raise ValueError("layers: expected at least one name pattern of layers to modulate, got none")
        if self.expansion <= 0:
            raise ValueError(f"expansion: expected a number above 0, got {self.expansion}")
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks: expected 1 or more at each level, got {self.blocks}")
        if not 0 <= self.attention_levels <= len(self.blocks):
            raise ValueError(f"attention_levels: expected 0 to {len(self.blocks)} levels, got {self.attention_levels}")
        if self.width % self.head_width:
            raise ValueError(f"width: expected a multiple of head_width {self.head_width}, got {self.width}")

    @property
    def size_multiple(self) -> int:
        """Height and width inside the network are padded to a multiple of this many pixels."""
        return self.patch * 2 ** (len(self.blocks) - 1)

    @property
    def least_weights(self) -> int:
        """Fewer numbers no network of this config has: those of the stem, and most of a block's, each level once."""
        widths = [self.width * 2**level for level in range(len(self.blocks))]
        blocks = (
            count * width * (28 + 3 * width + 3 * int(width * self.expansion))
            for count, width in zip(self.blocks, widths, strict=True)
        )
        return 27 * self.patch**2 * self.width + sum(blocks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; a ValueError names missing and unknown keys."""
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"model config: missing {sorted(names - set(values))}, unknown {sorted(set(values) - names)}"
            )
        for name, value in values.items():
            _check_kind(name, value)
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)


_TEXTS, _LISTS = ("tasks", "layers"), ("tasks", "layers", "blocks")
_LARGEST = 10_000_000  # of a number in a config


def _check_kind(name: str, value: Any) -> None:
    """Raise ValueError for a value of JSON that is not of its field's type, or a number beyond all networks."""
    if name in _LISTS and not isinstance(value, list):
        raise ValueError(f"{name}: expected a list, got {type(value).__name__}")
    for item in value if name in _LISTS else [value]:
        if name in _TEXTS:
            if not isinstance(item, str):
                raise ValueError(f"{name}: expected text, got {str(item)[:40]!r}")
        elif isinstance(item, bool) or not isinstance(item, int | float if name == "expansion" else int):
            raise ValueError(f"{name}: expected a number, got {str(item)[:40]!r}")
        elif not -_LARGEST <= item <= _LARGEST:  # NaN neither
            raise ValueError(f"{name}: expected at most {_LARGEST}, got {str(item)[:40]}")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "width": 32,
        "patch": 2,
        "blocks": (1, 1, 1),
        "attention_levels": 1,
        "head_width": 32,
        "expansion": 1.5,
    },
    "small": {
        "width": 48,
        "patch": 2,
        "blocks": (2, 2, 6),
        "attention_levels": 1,
        "head_width": 48,
        "expansion": 1.5,
    },
    "base": {
        "width": 48,
        "patch": 1,
        "blocks": (4, 6, 6, 7),
        "attention_levels": 2,
        "head_width": 48,
        "expansion": 2.5,
    },
}


def preset_config(preset: str, tasks: tuple[str, ...], rank: int, layers: tuple[str, ...]) -> ModelConfig:
    """The config of a named preset for the given tasks and task biases; a ValueError lists the presets."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}; got {preset!r}")
    return ModelConfig(tasks=tasks, rank=rank, layers=layers, **PRESETS[preset])
