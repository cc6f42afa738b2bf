"""Fresh geometry for training: squares out of tiles, flipped and turned, many at once; the damage is untouched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

TURNS = 8  # the symmetries of a square


@dataclass(frozen=True)
class Cuts:
    """Where N squares begin, and how they are turned; the same for the degraded and the clean image."""

    top: np.ndarray  # (N,) pixels
    left: np.ndarray  # (N,) pixels
    turn: np.ndarray  # (N,) of TURNS: quarter turns, from 4 on after a flip

    def __getitem__(self, which: list[int]) -> Cuts:
        return Cuts(self.top[which], self.left[which], self.turn[which])


def draw_cuts(generators: Iterable[np.random.Generator], each: int, shape: tuple[int, ...], side: int) -> Cuts:
    """Cuts of `side` pixels out of images of `shape` (H, W, ...), `each` by every generator in turn.

    Every place and turn is equally likely. Raises ValueError where the images are smaller than the cut.
    """
    height, width = shape[:2]
    if min(height, width) < side:
        raise ValueError(f"crop: expected images of at least {side} x {side} pixels, got {height} x {width}")
    ends = (height - side + 1, width - side + 1, TURNS)
    return Cuts(*np.concatenate([[rng.integers(0, end, each) for end in ends] for rng in generators], axis=1))


def cut_squares(images: np.ndarray, rows: list[int] | np.ndarray, cuts: Cuts, side: int) -> np.ndarray:
    """The squares `cuts` of the images (M, H, W, 3) with numbers `rows`: (N, 3, side, side) of their dtype."""
    windows = sliding_window_view(images, (side, side), axis=(1, 2))  # (M, H - side + 1, W - side + 1, 3, side, side)
    squares = windows[rows, cuts.top, cuts.left]
    for turn in range(1, TURNS):
        chosen = np.flatnonzero(cuts.turn == turn)
        if len(chosen):
            flipped = squares[chosen, :, ::-1] if turn > 3 else squares[chosen]
            squares[chosen] = np.rot90(flipped, turn % 4, (2, 3))
    return squares
