"""Pictures that no camera took and that want no restoring: plain colours, gradients, text, shapes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz    "


def draw(rng: np.random.Generator, side: int) -> np.ndarray:
    """A drawing, uint8 (side, side, 3) RGB, as of a screenshot or a cartoon."""
    kinds: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (plain, gradient, text, text, shapes, shapes)
    return kinds[rng.integers(len(kinds))](rng, side)


def plain(rng: np.random.Generator, side: int) -> np.ndarray:
    """One colour."""
    return np.full((side, side, 3), _colour(rng), np.uint8)


def gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """One colour going over into another, down or across."""
    first, second = np.array(_colour(rng)), np.array(_colour(rng))
    ramp = first + (second - first) * np.linspace(0, 1, side)[:, None, None] * np.ones((1, side, 1))
    return np.ascontiguousarray(np.rint(ramp if rng.random() < 0.5 else ramp.transpose(1, 0, 2)).astype(np.uint8))


def text(rng: np.random.Generator, side: int) -> np.ndarray:
    """Lines of letters, mostly dark on white or white on dark."""
    paper = [(255, 255, 255), (24, 22, 20), _colour(rng)][rng.choice(3, p=[0.5, 0.3, 0.2])]
    ink = (0, 0, 0) if np.mean(paper) > 128 else (230, 230, 230)
    page = np.full((side, side, 3), paper, np.uint8)
    size = rng.uniform(0.3, 0.9)
    font = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL][rng.integers(2)]
    for baseline in range(int(28 * size), side + 10, int(28 * size) + 3):
        line = "".join(rng.choice(list(LETTERS), 40))
        cv2.putText(page, line, (int(rng.integers(-20, 6)), baseline), font, size, ink, 1, cv2.LINE_AA)
    return page


def shapes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Flat rectangles, discs and lines over one another."""
    page = plain(rng, side)
    for _ in range(rng.integers(2, 14)):
        first, second = (tuple(int(v) for v in rng.integers(0, side, 2)) for _ in range(2))
        match rng.integers(3):
            case 0:
                cv2.rectangle(page, first, second, _colour(rng), int(rng.choice([-1, -1, 1])))
            case 1:
                cv2.circle(page, first, int(rng.integers(2, side // 3 + 3)), _colour(rng), -1, cv2.LINE_AA)
            case 2:
                cv2.line(page, first, second, _colour(rng), int(rng.integers(1, 4)), cv2.LINE_AA)
    return page


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue
