"""Low resolution: a picture that was small once and has been enlarged to its size again."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .transform import Damage

BOUNDS: Bounds = {"factor": (1.0, 8.0), "blur": (0.0, 2.0)}

SHRINK = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
ENLARGE = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)


def low_resolution(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    factor: float,
    blur: float = 0.5,
) -> np.ndarray:
    """Blur, shrink and enlarge to the same size, with interpolations drawn at random.

    One round of the resizing of Real-ESRGAN (Wang et al. 2021, section 3.2): which software did it is not known, so
    the network should not learn one.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the interpolation of both steps.
        factor: by which both sides shrink, 1 to 8; the small picture has a pixel a side at least.
        blur: sigma of the lens' blur before, pixels of the small picture, 0 to 2.

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when factor is 1.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "low_resolution")
    check_numbers("low_resolution", BOUNDS, factor=factor, blur=blur)
    down, up = SHRINK[rng.integers(len(SHRINK))], ENLARGE[rng.integers(len(ENLARGE))]
    if factor == 1:
        return image.copy()
    height, width = image.shape[:2]
    small = cv2.GaussianBlur(image, (0, 0), blur * factor) if blur > 0 else image
    size = (max(round(width / factor), 1), max(round(height / factor), 1))
    small = cv2.resize(small, size, interpolation=down)
    return np.clip(cv2.resize(small, (width, height), interpolation=up), 0.0, 1.0)


class LowResolution(Damage):
    """`low_resolution` with its parameters drawn from ranges.

    Args:
        factor: 1 to 8.
        blur: pixels of the small picture, 0 to 2.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(low_resolution)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(self, factor: Range = (1.5, 4.0), blur: Range = (0.2, 0.8), p: float = 0.5) -> None:
        super().__init__(p, factor=factor, blur=blur)
