"""`make contact-sheet`: every degradation at five severities on two photographs, into docs/degradations.jpg.

A severity is a point on the way from the lower to the upper end of all of a transform's default ranges at once.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from skimage import data

import degradations
from ipt.pixels import to_levels

SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
SIDE, CAPTION, GAP = 160, 18, 3
TARGET = Path("docs/degradations.jpg")


def photographs() -> list[np.ndarray]:
    """A portrait and an animal, float32 (SIDE, SIDE, 3) RGB in [0, 1]."""
    crops = data.astronaut()[:400, 60:460], data.chelsea()[:300, 80:380]
    return [cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for crop in crops]


def at_severity(name: str, image: np.ndarray, severity: float) -> np.ndarray:
    """The image damaged by the transform with its numbers at that point of their ranges."""
    transform = getattr(degradations, name)(p=1.0)
    ranges = {key: getattr(transform, key) for key in transform.bounds}
    numbers = {key: low + severity * (high - low) for key, (low, high) in ranges.items()}
    return type(transform).function(image, np.random.default_rng(0), **numbers)


def row(name: str, images: list[np.ndarray]) -> np.ndarray:
    """A captioned row: each photograph clean, then at each severity; uint8 RGB."""
    tiles = [tile for image in images for tile in (image, *(at_severity(name, image, s) for s in SEVERITIES))]
    gap = np.ones((SIDE, GAP, 3), np.float32)
    pictures = np.concatenate([part for tile in tiles for part in (tile, gap)], axis=1)
    sheet = to_levels(np.concatenate([np.ones((CAPTION, pictures.shape[1], 3), np.float32), pictures]))
    cv2.putText(sheet, name, (2, CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def main() -> None:
    """Write the sheet."""
    images = photographs()
    sheet = np.concatenate([row(name, images) for name in degradations.__all__])
    cv2.imwrite(str(TARGET), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"{TARGET}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


if __name__ == "__main__":
    main()
