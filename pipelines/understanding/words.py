"""What is collected in `sentences/`: what people say of each task and of several at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ipt.understanding.instruction import Example

GENERAL = ("templates", "story", "unclear", "other", "several")  # files of no single task


@dataclass(frozen=True)
class TaskWords:
    """What people say of one task: nouns and adjectives for the damage, verb phrases, whole sentences."""

    damage: Sequence[str]
    looks: Sequence[str]
    repairs: Sequence[str]
    complaints: Sequence[str]


@dataclass(frozen=True)
class Words:
    """What people say, as far as listed tasks are concerned; tasks are numbered in the order of the list."""

    tasks: Sequence[TaskWords]
    lent: Mapping[int, Sequence[TaskWords]]
    """By listed task: what is said of tasks that are not listed and ask for this one then."""
    unlisted: Sequence[TaskWords]
    """What is said of other tasks that are not listed: it asks for nothing."""
    several: Sequence[Example]


def read_words(folder: Path, instructions: Mapping[str, Sequence[str]]) -> Words:
    """The words in `folder` for the tasks listed in `instructions`, which need no file: their instructions serve.

    Where a task with a file is not listed, its sentences ask for the listed task that the file names as `otherwise`,
    or else for nothing.
    """
    collected = {path.stem: read(path) for path in sorted(folder.glob("*.yaml")) if path.stem not in GENERAL}
    taken_as = _taken_as({task: words.pop("otherwise", None) for task, words in collected.items()}, instructions)
    nothing: dict[str, list[str]] = {"damage": [], "looks": [], "repairs": [], "complaints": []}
    tasks = [_task_words(collected.pop(task, nothing), of_task) for task, of_task in instructions.items()]
    lent: dict[int, list[TaskWords]] = {}
    for task in sorted(set(collected) & set(taken_as)):
        lent.setdefault(taken_as[task], []).append(TaskWords(**collected.pop(task)))
    unlisted = [TaskWords(**words) for words in collected.values() if words["complaints"]]
    return Words(tasks, lent, unlisted, _several(folder / "several.yaml", taken_as))


def read(path: Path) -> Any:
    """A file of words."""
    return YAML(typ="safe", pure=True).load(path.read_text())


def forms(verb: str) -> dict[str, str]:
    """A task's name as a verb: `do`, `does`, `doing`, `done`, and who does it, `doer`."""
    stem = verb.removesuffix("e")
    if re.search(r"[^aeiou][aeiou][^aeiouwxy]$", verb) and not verb.endswith("en"):
        stem += verb[-1]  # deblurred, but brightened, desnowed and derained
    return {"do": verb, "does": f"{verb}s", "doing": f"{stem}ing", "done": f"{stem}ed", "doer": f"{stem}er"}


def _taken_as(otherwise: Mapping[str, str | None], listed: Iterable[str]) -> dict[str, int]:
    """The number of the listed task that each task's sentences ask for; tasks of which they ask for none are not in."""
    numbers = {task: number for number, task in enumerate(listed)}
    return {task: numbers[other] for task, other in otherwise.items() if other in numbers} | numbers


def _task_words(words: Mapping[str, Sequence[str]], instructions: Sequence[str]) -> TaskWords:
    return TaskWords(**{**words, "complaints": [*words["complaints"], *instructions]})


def _several(path: Path, taken_as: Mapping[str, int]) -> list[Example]:
    """Sentences with the tasks of `taken_as` that they ask for; those that ask for other tasks alone are left out."""
    wanted = [
        (entry["say"], entry["want"], [taken_as[task] for task in entry["want"] if task in taken_as])
        for entry in read(path)
    ]
    return [(say, tuple(dict.fromkeys(numbers))) for say, tasks, numbers in wanted if numbers or not tasks]
