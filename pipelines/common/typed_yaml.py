"""A YAML file as frozen dataclasses: strict, typed, without defaults; knows none of the dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


class ParamsError(ValueError):
    """A value of params.yaml that cannot be used; the message says where, what was expected and what came."""


def load_yaml(path: Path, kind: type) -> Any:
    """Read `path` as the dataclass `kind`; a ParamsError names the first key that is missing, unknown or ill-typed."""
    try:
        # ruamel reads YAML 1.2 as DVC does: 2e-4 is a number (PyYAML makes it text).
        tree = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file in {Path.cwd()}; run from the top of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML: {error}") from None
    return _build(kind, tree, str(path))


def unknown(what: str, name: Any, known: typing.Iterable[str]) -> str:
    """What to say of a name that is none of `known`: the closest of them, or all."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} '{name}'; {hint}"


def _build(kind: Any, value: Any, where: str) -> Any:
    """Turn a plain YAML value into `kind`, a dataclass or a type of the few forms that params need."""
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
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        if len(value) != len(kinds):
            raise ParamsError(f"{where}: expected a list of {len(kinds)}, got {value!r}")
        return tuple(
            _build(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
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
            raise ParamsError(f"{where}.{key}: {unknown('key', key, hints)}")
    optional = {name for name, hint in hints.items() if types.NoneType in typing.get_args(hint)}
    for name in hints:
        if name not in value and name not in optional:
            raise ParamsError(f"{where}.{name}: missing; expected {_name(hints[name])}")
    return kind(**{name: _build(hint, value.get(name), f"{where}.{name}") for name, hint in hints.items()})


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
