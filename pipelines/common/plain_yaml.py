"""A YAML file as plain values: what JSON has too."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError

_MOST_VALUES = 100_000  # ours have a thousand; a few anchors in one another stand for billions


def read_plain(path: Path) -> Any:
    """Read `path` as numbers, texts, lists and blocks whose keys are texts.

    A ValueError says where it has anything else (YAML knows dates, sets and bytes besides), or an anchor twice, or why
    it is no YAML.
    """
    try:
        # ruamel reads YAML 1.2 as DVC does: 2e-4 is a number (PyYAML makes it text).
        with warnings.catch_warnings():
            warnings.simplefilter("error", ReusedAnchorWarning)  # a thousand of them take seconds to be told
            tree = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file in {Path.cwd()}; run from the top of the repository") from None
    except (YAMLError, ReusedAnchorWarning, ValueError, TypeError) as error:
        # ValueError: bytes that are no text, or the 32nd of a month; TypeError: a block as a key.
        raise ValueError(f"{path}: not YAML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: not YAML that is read here: lists or blocks in one another without end") from None
    try:
        return _plain(tree, str(path), itertools.count(1))
    except RecursionError:  # an anchor inside what it names
        raise ValueError(f"{path}: expected an end, got a list or block that holds itself") from None


def _plain(value: Any, where: str, number: Iterator[int]) -> Any:
    if next(number) > _MOST_VALUES:
        raise ValueError(f"{where}: expected at most {_MOST_VALUES} values in all, got more")
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}.{key}", number) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{where}[{place}]", number) for place, item in enumerate(value)]
    if value is None or isinstance(value, int | float | str):
        return value
    raise ValueError(f"{where}: expected a number, text, a list or a block; got {value!r}")
