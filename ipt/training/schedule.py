"""How learning rates fall and weights are averaged in the course of a training."""

from __future__ import annotations

import math


def decayed(done: float) -> float:
    """Share of the peak learning rate when a share `done` of its decay is over: a cosine from 1 to 1 %."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def kept_of_average(decay: float, count: int) -> float:
    """Share of the averaged weights of `count` steps that stays in the next: at most `decay`.

    The window grows with the run, so that the first weights are soon forgotten.
    """
    return min(decay, (1 + count) / (10 + count))
