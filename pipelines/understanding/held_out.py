"""How well instructions are understood that nobody trained on: the lists in `sentences/held_out/`."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from ipt.understanding.instruction import InstructionModel
from pipelines.understanding.corpus import SENTENCES

HELD_OUT = SENTENCES / "held_out"
ALL = "all"  # lists together, each sentence counting alike: of some lists a handful asks for the model's tasks
KINDS = ("unclear", "one", "two")  # by the number of tasks that are wanted


def score_held_out(
    model: InstructionModel, tasks: list[str], asked: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """Share of the sentences understood rightly of each held-out list by kind, and of ALL lists `understood`."""
    right = {path.stem: understood_rightly(model, tasks, path, asked) for path in sorted(HELD_OUT.iterdir())}
    every = [value for of_list in right.values() for of_kind in of_list.values() for value in of_kind]
    shares = {name: {kind: _share(values) for kind, values in of_list.items()} for name, of_list in right.items()}
    return shares | {ALL: {"understood": _share(every)}}


def understood_rightly(
    model: InstructionModel, tasks: list[str], path: Path, asked: Collection[str] | None = None
) -> dict[str, list[bool]]:
    """Whether each sentence of a CSV (sentence, tasks) is understood rightly, by how many tasks it asks for.

    `tasks` are the model's, in its order. A sentence that asks for a task not in `asked` (by default `tasks`) is left
    out, and so is a kind without sentences.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if set(row["tasks"].split()) <= set(tasks if asked is None else asked)
        ]
    with torch.no_grad():
        understood, _ = model.read([row["sentence"] for row in rows])
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for row, of_row in zip(rows, understood, strict=True):
        wanted = set(row["tasks"].split())
        right[KINDS[len(wanted)]].append({tasks[place] for place in of_row} == wanted)
    return {kind: values for kind, values in right.items() if values}


def _share(values: list[bool]) -> float:
    return round(float(np.mean(values)), 4)
