"""How well instructions are understood that nobody trained on: the lists in `sentences/held_out/`."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from ipt.understanding.instruction import InstructionModel, understood_tasks
from pipelines.understanding.corpus import SENTENCES

HELD_OUT = SENTENCES / "held_out"


def score_held_out(
    model: InstructionModel, tasks: list[str], asked: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """`score_instructions` of each held-out list, by the list's name."""
    return {path.stem: score_instructions(model, tasks, path, asked) for path in sorted(HELD_OUT.iterdir())}


def score_instructions(
    model: InstructionModel, tasks: list[str], path: Path, asked: Collection[str] | None = None
) -> dict[str, float]:
    """Share of the sentences of a CSV (sentence, tasks) understood rightly, by how many tasks they ask for.

    `tasks` are the model's, in its order. A sentence that asks for a task not in `asked` (by default `tasks`) is left
    out.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if set(row["tasks"].split()) <= set(tasks if asked is None else asked)
        ]
    with torch.no_grad():
        probabilities = model([row["sentence"] for row in rows])
    right: dict[str, list[bool]] = {"unclear": [], "one": [], "two": []}
    for row, of_row in zip(rows, probabilities.tolist(), strict=True):
        wanted = set(row["tasks"].split())
        kind = ("unclear", "one", "two")[len(wanted)]
        right[kind].append(set(understood_tasks(dict(zip(tasks, of_row, strict=True)))) == wanted)
    return {kind: round(float(np.mean(values)), 4) for kind, values in right.items() if values}
