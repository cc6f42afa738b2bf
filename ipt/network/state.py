"""Whether tensors by name fit what a model expects."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Size, Tensor

NAMED = 5  # problems that a message names


def misfits(expected: Mapping[str, Size], given: Mapping[str, Tensor]) -> str:
    """What is missing, unexpected or of another shape, the first few by name; empty where all fits."""
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    problems += [
        f"{name}: expected shape {tuple(expected[name])}, got {tuple(value.shape)}"
        for name, value in given.items()
        if name in expected and value.shape != expected[name]
    ]
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return "; ".join(problems[:NAMED]) + more
