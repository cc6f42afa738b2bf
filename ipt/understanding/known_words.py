"""What common words mean by the company they keep, so that a word no training sentence had is not a stranger.

The vectors are those of GloVe (Pennington, Socher, Manning 2014; glove.6B.50d, public domain: PDDL 1.0), for 16,384
words, turned to their principal axes, in 8 bits; `python -m benchmarks.known_words` made them. They belong to
the code, not to a checkpoint: what was trained with them reads them, so they never change.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

VECTORS = Path(__file__).with_name("known_words.safetensors")
LENGTH = 50  # of a vector
STEP = 1 / 32  # what the last of the 8 bits is worth


@functools.cache
def _known_words() -> tuple[dict[str, int], Tensor]:
    with safe_open(VECTORS, "pt") as file:
        words, vectors = file.metadata()["words"].split(), file.get_tensor("vectors")
    return {word: number for number, word in enumerate(words)}, torch.cat([vectors, torch.zeros(1, LENGTH)])


def meanings(words: Sequence[str]) -> Tensor:
    """The vectors of N lower-case words, (N, LENGTH), of about unit variance; zeros for words that are not known."""
    numbers, vectors = _known_words()
    return vectors[torch.tensor([numbers.get(word, -1) for word in words], dtype=torch.long)] * STEP
