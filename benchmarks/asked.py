"""Damage that the released model undoes when asked in words, into docs/asked.jpg: `python -m benchmarks.asked`.

Left the damaged photograph, in the middle what the sentence makes of it, right the photograph as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from skimage import data

from benchmarks.gallery import joined, write_jpeg
from degradations.recipe import degrade
from ipt import InstructIPT, restore_image
from ipt.pixels import to_levels, to_unit

TARGET = Path("docs/asked.jpg")

Row = tuple[str, np.ndarray, list[dict[str, Any]]]


def rows() -> list[Row]:
    """Sentence, photograph of scikit-image (CC0, NASA) and recipe of its damage."""
    grain: list[dict[str, Any]] = [{"GaussianNoise": {"sigma": 22}}, {"ImageCompression": {"quality_range": [90, 90]}}]
    dark = [{"LowLight": {"stops": 2.2, "gamma": 1.1, "shot": 3, "read": 0.6}}]
    blocks = [{"ImageCompression": {"quality_range": [12, 12]}}]
    drops = [{"LensDrops": {"density": 300, "size": [18, 40], "opacity": 0.9, "rim": 0.4}}]
    return [
        ("full of grain at this ISO", data.astronaut()[150:406, 100:484], grain),
        ("it is far too dark", data.coffee()[70:326, 130:514], dark),
        ("the messenger squashed it into blocks", data.chelsea()[20:276, 20:404], blocks),
        ("raindrops on my lens", data.astronaut()[0:256, 40:424], drops),
    ]


def triptych(model: InstructIPT, row: Row) -> np.ndarray:
    """Damaged, restored and as it was, side by side, uint8 RGB."""
    sentence, clean, recipe = row
    degraded = to_levels(degrade(to_unit(clean), recipe, np.random.default_rng(0))[0])
    return joined([degraded, restore_image(model, degraded, instruction=sentence), clean], 1)


def main() -> None:
    """Write the picture."""
    model = InstructIPT.from_pretrained()
    sheet = joined([triptych(model, row) for row in rows()], 0)
    write_jpeg(sheet, TARGET)
    print(f"{TARGET}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


if __name__ == "__main__":
    main()
