"""The dark channel prior, what people have against haze without training; no kept package has it.

From the equations of He, Sun & Tang, "Single Image Haze Removal Using Dark Channel Prior" (CVPR 2009), with its
numbers, and of the guided filter that its authors later put in the place of soft matting (He, Sun & Tang, "Guided
Image Filtering", ECCV 2010), with a grey guide.
"""

from __future__ import annotations

import cv2
import numpy as np

WINDOW = 15  # pixels, over which the darkest value is taken
HAZE_REMOVED = 0.95  # omega: a little stays, for the sake of depth
LEAST_TRANSMISSION = 0.1  # t0
BRIGHTEST = 0.001  # share of the pixels of the dark channel among which the airlight is looked for
RADIUS, EPSILON = 60, 1e-3  # of the guided filter: pixels, and variance that counts as flat; the best of four on RESIDE


def dehaze(image: np.ndarray) -> np.ndarray:
    """An RGB image (H, W, 3), float32 in [0, 1], without its haze; the same shape, dtype and range."""
    airlight = estimate_airlight(image)
    raw = 1 - HAZE_REMOVED * dark_channel(image / airlight)
    transmission = guided_filter(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), raw)
    return ((image - airlight) / np.maximum(transmission, LEAST_TRANSMISSION)[..., None] + airlight).clip(0, 1)


def dark_channel(image: np.ndarray) -> np.ndarray:
    """(H, W): the smallest value of any channel in the window around each pixel."""
    return cv2.erode(image.min(2), np.ones((WINDOW, WINDOW), np.uint8))


def estimate_airlight(image: np.ndarray) -> np.ndarray:
    """(3,): the brightest pixel among those whose dark channel is brightest; never 0, for it is divided by."""
    dark = dark_channel(image).ravel()
    count = max(1, round(BRIGHTEST * dark.size))
    candidates = image.reshape(-1, 3)[np.argpartition(dark, -count)[-count:]]
    return np.maximum(candidates[candidates.sum(1).argmax()], np.float32(1 / 255))


def guided_filter(guide: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`image` (H, W) smoothed, with the edges of `guide` (H, W): in each window the linear function of it that fits."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (2 * RADIUS + 1, 2 * RADIUS + 1), borderType=cv2.BORDER_REFLECT)

    guide_mean, image_mean = mean(guide), mean(image)
    slope = (mean(guide * image) - guide_mean * image_mean) / (mean(guide * guide) - guide_mean**2 + EPSILON)
    return mean(slope) * guide + mean(image_mean - slope * guide_mean)
