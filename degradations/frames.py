"""Blur as data sets make it: the frames of a film, averaged."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .contract import Bounds, Range, check_image, check_numbers
from .light import convolve
from .trajectory import hand_path, path_kernel
from .transform import Damage

BOUNDS: Bounds = {"length": (0.0, 40.0), "nervousness": (0.0, 1.0)}


def frame_average(
    image: np.ndarray, rng: np.random.Generator, *, length: float, nervousness: float = 0.5
) -> np.ndarray:
    """Average the values of the frames of a film of a shaking hand, as they stand in its file.

    What GoPro's data set calls a linear response (Nah et al. 2017): unlike `camera_shake`, and unlike an exposure, the
    mean is of sRGB values and not of light, so bright edges do not grow. The frames are so many that they leave no
    gaps. The path is `hand_path`, so the picture is not shifted; outside, it is mirrored.

    Args:
        image: float32 (H, W, 3) RGB in [0, 1].
        rng: draws the path.
        length: longer side of the path's bounding box, pixels, 0 to 40.
        nervousness: 0 (an even sweep) to 1 (a tremble with jerks).

    Returns:
        float32 (H, W, 3) in [0, 1]; a copy of `image` when length is 0.

    Raises:
        ValueError: a parameter out of range, or not such an image.
    """
    image = check_image(image, "frame_average")
    check_numbers("frame_average", BOUNDS, length=length, nervousness=nervousness)
    if length == 0:
        return image.copy()
    path = hand_path(rng, length=length, nervousness=nervousness)
    return np.clip(convolve(image, path_kernel(path)), 0, 1)


class FrameAverage(Damage):
    """`frame_average` with its parameters drawn from ranges.

    Args:
        length: pixels, 0 to 40.
        nervousness: 0 to 1.
        p: probability of being applied.
    """

    function: ClassVar = staticmethod(frame_average)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(self, length: Range = (1.0, 20.0), nervousness: Range = (0.0, 1.0), p: float = 0.5) -> None:
        super().__init__(p, length=length, nervousness=nervousness)
