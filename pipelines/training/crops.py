"""Fresh geometry for training pairs: the same crop, flip and turn on both images, the damage untouched."""

from __future__ import annotations

import albumentations as A
import numpy as np


class PairCrop:
    """Cuts the same random square out of two images of equal size and flips and turns both alike.

    Not for use by several threads at once: each needs its own.
    """

    def __init__(self, crop: int) -> None:
        self._crop = crop
        self._pipeline = A.Compose([A.RandomCrop(crop, crop), A.D4(p=1)], additional_targets={"clean": "image"})

    def __call__(self, degraded: np.ndarray, clean: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two (H, W, 3) images to two (crop, crop, 3); where and how depends on `seed` alone.

        Raises ValueError where the images differ in size or are smaller than the crop.
        """
        if degraded.shape != clean.shape or min(degraded.shape[:2]) < self._crop:
            raise ValueError(
                f"crop: expected two images of equal size, at least {self._crop} x {self._crop}; "
                f"got {degraded.shape} and {clean.shape}"
            )
        self._pipeline.set_random_seed(seed)
        pair = self._pipeline(image=degraded, clean=clean)
        return pair["image"], pair["clean"]
