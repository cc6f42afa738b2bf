"""A task's recipe out of params.yaml -> degraded images: a checked and seeded chain."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import albumentations as A
import numpy as np

import degradations

from .contract import check_image, check_range

LONGEST_LIST = 16  # numbers of a list that may stand in a severity; longer ones are pixels or drops


def check_recipe(recipe: object, where: str) -> None:
    """Refuse a recipe that could not be cooked.

    Args:
        recipe: list of one-key mappings {TransformName: {argument: value}}, applied in order. The
            name is a public transform of `degradations` or, failing that, an image-only transform
            of albumentations. `p` among the arguments is the step's probability, 1 when absent.
        where: place of the recipe in its file, such as "tasks.derain.recipe", for the message.

    Raises:
        ValueError: no list, empty, a step of another form, an unknown transform or argument, or a
            value that the transform refuses; the message names the step.
    """
    if not isinstance(recipe, list) or not recipe:
        raise ValueError(f"{where}: expected a list of at least one transform, got {recipe!r}")
    for index, step in enumerate(recipe):
        here = f"{where}[{index}]"
        name, arguments, _ = _read_step(step, here)
        with warnings.catch_warnings():
            # albumentations reports some bad values as a warning and goes on with its defaults.
            # Only here: catching warnings is not safe in threads, and `degrade` may run in them.
            warnings.simplefilter("error", UserWarning)
            transform = _build(name, arguments, here)
        if not isinstance(transform, degradations.transform.Damage):
            _try_out(transform, here)


def rng_for(seed: int, task: str, image_id: str, variant: int) -> np.random.Generator:
    """Generator for one row of a dataset: the same for the same four, in any process, anywhere.

    Args:
        seed: of the dataset.
        task: name of the task.
        image_id: name of the clean image.
        variant: which of its degraded versions.

    Returns:
        PCG64 seeded with SHA-256 of the four; unrelated for any other four.
    """
    key = json.dumps([int(seed), task, image_id, int(variant)]).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key).digest())))


def degrade(
    clean: np.ndarray, recipe: Sequence[dict[str, Any]], rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Any]]:
    """Apply a recipe to one image.

    Every step takes the same two draws from `rng`, whether it is applied or not, so a step's
    probability changes nothing in the others.

    Args:
        clean: float32 (H, W, 3) RGB in [0, 1].
        recipe: as in `check_recipe`.
        rng: determines everything that is drawn.

    Returns:
        The degraded image, float32 (H, W, 3) in [0, 1], and its severity: transform name -> the
        numbers drawn, None for a step that its `p` skipped. It goes through JSON unchanged. A
        name's second step is "Name#2".

    Raises:
        ValueError: not such an image, or a recipe that `check_recipe` refuses.
    """
    image = check_image(clean, "degrade").copy()
    severity: dict[str, Any] = {}
    for index, step in enumerate(recipe):
        here = f"recipe[{index}]"
        name, arguments, probability = _read_step(step, here)
        chance, seed = rng.random(), int(rng.integers(2**63))
        key = name if name not in severity else f"{name}#{_count(severity, name) + 1}"
        if chance >= probability:
            severity[key] = None
            continue
        transform = _build(name, arguments, here)
        image = _apply(transform, image, seed, here)
        severity[key] = _severity(transform)
    return image, severity


def _count(severity: dict[str, Any], name: str) -> int:
    return sum(key.split("#")[0] == name for key in severity)


def _read_step(step: object, where: str) -> tuple[str, dict[str, Any], float]:
    """Name, arguments without `p`, and probability of one step."""
    if not isinstance(step, dict) or len(step) != 1:
        raise ValueError(f"{where}: expected one {{Transform: {{argument: value}}}}, got {step!r}")
    ((name, arguments),) = step.items()
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError(f"{where}.{name}: expected arguments by name, got {arguments!r}")
    arguments = dict(arguments)
    probability, _ = check_range(f"{where}.{name}.p", arguments.pop("p", 1.0), (0.0, 1.0))
    return name, arguments, probability


def _build(name: str, arguments: dict[str, Any], where: str) -> A.ImageOnlyTransform:
    """The transform of one step; it is always applied when called."""
    kind = _find(name, where)
    known = _arguments(kind)
    for key in arguments:
        if key not in known:
            hint = _hint(key, known) or f"; it takes {', '.join(known)}"
            raise ValueError(f"{where}: {name} has no argument {key!r}{hint}")
    try:
        return kind(**arguments, p=1.0)
    except (ValueError, TypeError, UserWarning) as error:
        raise ValueError(f"{where}: {error}") from error


def _find(name: object, where: str) -> type[A.ImageOnlyTransform]:
    if name in degradations.__all__:
        return getattr(degradations, name)
    kind = getattr(A, name, None) if isinstance(name, str) else None
    if inspect.isclass(kind) and issubclass(kind, A.ImageOnlyTransform):
        return kind
    if inspect.isclass(kind) and issubclass(kind, A.BasicTransform):
        raise ValueError(
            f"{where}: {name} moves pixels, so the clean image would no longer fit; "
            "expected a transform that changes values only"
        )
    theirs = [
        key for key in dir(A) if inspect.isclass(getattr(A, key)) and issubclass(getattr(A, key), A.ImageOnlyTransform)
    ]
    hint = _hint(str(name), [*degradations.__all__, *theirs])
    raise ValueError(f"{where}: unknown transform {name!r}{hint}")


def _arguments(kind: type[A.ImageOnlyTransform]) -> list[str]:
    """Names of a transform's arguments without `p`; ours keep them, which is faster to read."""
    if issubclass(kind, degradations.transform.Damage):
        return list(kind.bounds)
    return [key for key in inspect.signature(kind).parameters if key != "p"]


def _hint(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _apply(transform: A.ImageOnlyTransform, image: np.ndarray, seed: int, where: str) -> np.ndarray:
    transform.set_random_seed(seed)
    result = transform(image=image)["image"]
    _check_kept(result, image.shape, transform, where)
    return np.clip(result, 0.0, 1.0)


def _check_kept(result: np.ndarray, shape: tuple[int, ...], transform: A.ImageOnlyTransform, where: str) -> None:
    if result.dtype != np.float32 or result.shape != shape:
        raise ValueError(
            f"{where}: {type(transform).__name__} turns a float32 {shape} image into "
            f"{result.dtype} {result.shape}; a recipe needs transforms that keep both"
        )


def _try_out(transform: A.ImageOnlyTransform, where: str) -> None:
    """Apply another's transform once: some refuse float32 or need more than an image."""
    try:
        result = transform(image=np.full((64, 64, 3), 0.5, np.float32))["image"]
    except Exception as error:  # theirs raise whatever they like
        raise ValueError(f"{where}: {type(transform).__name__} cannot be used: {error}") from error
    _check_kept(result, (64, 64, 3), transform, where)


def _severity(transform: A.ImageOnlyTransform) -> dict[str, Any]:
    """The numbers, words and short lists that a transform drew."""
    if isinstance(transform, degradations.transform.Damage):
        return transform.severity
    drawn = {key: _plain(value) for key, value in transform.get_applied_params().items() if key != "shape"}
    return {key: value for key, value in drawn.items() if value is not None}


def _plain(value: object) -> Any:
    """JSON form of a number, word or short list of numbers; None for anything else."""
    if isinstance(value, np.ndarray | list | tuple):
        items = np.asarray(value, dtype=object).ravel().tolist()
        short = len(items) <= LONGEST_LIST and all(isinstance(item, Real) for item in items)
        return [_plain(item) for item in items] if short else None
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | bool | int | float) else None
