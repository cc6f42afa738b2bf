"""`make statistics DATA=FOLDER`: the default recipes beside the real thing, into docs/statistics.png.

FOLDER holds pairs as bench/rain100l_20, bench/gopro_10 and bench/its_4 (each degraded/ and clean/), snow layers on
black in masks/snow, and photographs with depth in depth/rgb and depth/depth_mm (16-bit PNG, millimetres). The recipe
is given the same clean pictures, so that what differs is the damage.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np

from benchmarks.residuals import (
    Curve,
    Pairs,
    blob_sizes,
    contrast_kept,
    orientation,
    power_ratio,
    residual_histogram,
    residual_spectrum,
)
from degradations.depth import scene_depth
from degradations.haze import haze
from degradations.recipe import degrade, rng_for
from ipt.photos.images import read_image
from pipelines.common.params import load_params
from pipelines.data.metrics import psnr

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TARGET = Path("docs/statistics.png")
PARTS = ("bench/rain100l_20", "bench/gopro_10", "bench/its_4", "masks/snow", "depth/rgb", "depth/depth_mm")
SIDE = 320  # pixels of the squares that are compared; tiles of training are 128
SNOW_PER_MASK = 8  # photographs that each snow layer is laid over


class Row(NamedTuple):
    """One kind of damage: pairs of both sources, and what to look at beside PSNR and residual."""

    name: str
    real: Pairs
    made: Pairs
    spectrum: Callable[[Pairs], Curve]
    own: Callable[[Pairs], Curve]
    own_label: str


def squares(image: np.ndarray, count: int = 4) -> list[np.ndarray]:
    """Up to `count` squares from the corners of a picture, the picture's shorter side if that is less."""
    height, width = image.shape[:2]
    side = min(SIDE, height, width)
    corners = {(top, left) for top in (0, height - side) for left in (0, width - side)}
    return [image[top : top + side, left : left + side] for top, left in sorted(corners)[:count]]


def real_pairs(folder: Path) -> Pairs:
    """Squares of all pairs of a folder."""
    files = sorted((folder / "clean").iterdir())
    if not files:
        raise FileNotFoundError(f"{folder}/clean: expected pictures, found none")
    return [
        pair
        for file in files
        for pair in zip(squares(read_image(folder / "degraded" / file.name)), squares(read_image(file)), strict=True)
    ]


def made_pairs(task: str, recipe: list, cleans: list[np.ndarray]) -> Pairs:
    """The recipe on those pictures."""
    return [
        (degrade(np.ascontiguousarray(clean), recipe, rng_for(0, task, "statistics", number))[0], clean)
        for number, clean in enumerate(cleans)
    ]


def snow_pairs(masks: Path, cleans: list[np.ndarray]) -> Pairs:
    """Real snow layers over photographs: I = x (1 - m) + m, as Snow100K is made."""
    layers = [square for file in sorted(masks.iterdir()) for square in squares(read_image(file))]
    picks = [(layer, cleans[(number + 7 * turn) % len(cleans)]) for number, layer in enumerate(layers)
             for turn in range(SNOW_PER_MASK)]  # fmt: skip
    sides = [min(*layer.shape[:2], *clean.shape[:2]) for layer, clean in picks]
    cut = [(layer[:side, :side], clean[:side, :side]) for (layer, clean), side in zip(picks, sides, strict=True)]
    return [(clean * (1 - layer) + layer, clean) for layer, clean in cut]


def depth_pairs(folder: Path, made_up: bool) -> tuple[Pairs, np.ndarray]:
    """Haze of middling strength through measured or made-up depth, and all depths in metres."""
    pairs, depths = [], []
    for number, file in enumerate(sorted((folder / "rgb").iterdir())):
        image = read_image(file)
        measured = cv2.imread(str(folder / "depth_mm" / f"{file.stem}.png"), cv2.IMREAD_UNCHANGED) / 1000
        rng = np.random.default_rng(number)
        depth = rng.uniform(1, 3) + rng.uniform(1, 5) * scene_depth(image, rng) if made_up else measured
        depth = cv2.resize(depth.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        pairs.append((haze(image, rng, beta=0.2, airlight=0.85, depth=depth), image))
        depths.append(depth.ravel())
    return pairs, np.concatenate(depths)


def depth_histogram(depths: np.ndarray) -> Curve:
    """Density over metres."""
    density, edges = np.histogram(depths, np.linspace(0, 10, 41), density=True)
    return edges[:-1], density


def draw(axes: np.ndarray, row: Row) -> None:
    """PSNR, residual, spectrum and the damage's own trait, real and made."""
    bins = np.arange(5, 46, 2)
    for pairs, name, colour in ((row.real, "real", "black"), (row.made, "made", "tab:red")):
        damage = [psnr(*pair) for pair in pairs]
        axes[0].hist(damage, bins, density=True, alpha=0.5, color=colour, label=f"{name}, {np.mean(damage):.1f} dB")
        for axis, measure in zip(axes[1:], (residual_histogram, row.spectrum, row.own), strict=True):
            axis.plot(*measure(pairs), color=colour, label=name)
    axes[1].set_yscale("log")
    axes[1].set_ylim(1e-6, 1)
    axes[2].set_xscale("log")
    axes[2].set_yscale("log")
    axes[0].set_ylabel(row.name)
    labels = ("PSNR of the degraded, dB", "degraded - clean, grey levels", "cycles per pixel", row.own_label)
    for axis, label in zip(axes, labels, strict=True):
        axis.set_xlabel(label)
    axes[0].legend(fontsize=7)


def rows(data: Path) -> list[Row]:
    """All comparisons."""
    tasks = load_params().tasks
    rain, blur, hazy = (real_pairs(data / name) for name in PARTS[:3])
    photographs = [clean for _, clean in rain]
    snow = snow_pairs(data / "masks" / "snow", photographs)

    def made(task: str, real: Pairs) -> Pairs:
        return made_pairs(task, tasks[task].recipe, [clean for _, clean in real])

    measured, measured_depth = depth_pairs(data / "depth", made_up=False)
    made_up, made_up_depth = depth_pairs(data / "depth", made_up=True)
    depths = {id(measured): measured_depth, id(made_up): made_up_depth}
    angle, sizes = "direction of edges, degrees", "diameter of flakes, pixels"
    return [
        Row("rain (Rain100L)", rain, made("derain", rain), residual_spectrum, orientation, angle),
        Row("blur (GoPro)", blur, made("deblur", blur), power_ratio, orientation, angle),
        Row("haze (RESIDE)", hazy, made("dehaze", hazy), residual_spectrum, contrast_kept, "local contrast kept"),
        Row("haze, NYU depth", measured, made_up, residual_spectrum,
            lambda pairs: depth_histogram(depths[id(pairs)]), "depth, metres"),
        Row("snow (masks)", snow, made("desnow", snow), residual_spectrum, blob_sizes, sizes),
    ]  # fmt: skip


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    if missing := [part for part in PARTS if not (data / part).is_dir()]:
        parser.error(f"{data}: expected folders {', '.join(PARTS)} in it, not there: {', '.join(missing)}")
    compared = rows(data)
    figure, axes = plt.subplots(len(compared), 4, figsize=(12, 2.5 * len(compared)), layout="constrained")
    for line, row in zip(axes, compared, strict=True):
        draw(line, row)
    figure.savefig(TARGET, dpi=80)
    print(f"{TARGET}: {len(compared)} kinds of damage")


if __name__ == "__main__":
    main()
