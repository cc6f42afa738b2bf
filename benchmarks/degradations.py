"""`make bench-degradations`: megapixels a second on one core at 512 x 512, beside albumentations and imagecorruptions.

Each of ours takes turns with its counterparts, so a change of the machine's speed meets them alike; ratios are medians
over rounds. `imagecorruptions` (ImageNet-C, Michaelis et al. 2019) is left out, and said so, where it is absent.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import albumentations as A
import cv2
import numpy as np
from skimage import data

import degradations
from degradations.recipe import degrade, rng_for
from pipelines.common.params import load_params

SIDE, ROUNDS = 512, 15
TILE, TILES = 128, 60

# Ours -> albumentations' nearest transform and imagecorruptions' nearest function at its middle severity.
COUNTERPARTS = {
    "GaussianNoise": ("GaussNoise", "gaussian_noise"),
    "SensorNoise": ("ISONoise", "shot_noise"),
    "CameraShake": ("MotionBlur", "motion_blur"),
    "FrameAverage": ("MotionBlur", "motion_blur"),
    "ObjectMotion": ("MotionBlur", "motion_blur"),
    "Defocus": ("Defocus", "defocus_blur"),
    "Rain": ("RandomRain", None),
    "Haze": ("RandomFog", None),
    "Snow": ("RandomSnow", "snow"),
    "LensDrops": ("Spatter", "spatter"),
    "LowLight": ("RandomBrightnessContrast", "brightness"),
    "LowResolution": ("Downscale", "pixelate"),
}


def main() -> None:
    """Print the table of speeds and the mean time of a default pair of each task."""
    cv2.setNumThreads(1)
    picture = cv2.resize(data.astronaut(), (SIDE, SIDE))
    corrupt = imagecorruptions()
    print(f"megapixels a second on one core, {SIDE} x {SIDE}, median of {ROUNDS} rounds, in brackets ours / theirs")
    print(f"{'':16s}{'ours':>8s}  {'albumentations':34s}imagecorruptions")
    for name in degradations.__all__:
        print(line(name, picture, corrupt), flush=True)
    for name, task in load_params().tasks.items():
        print(f"{name}: {tile_milliseconds(name, task.recipe, picture):.2f} ms a {TILE} x {TILE} pair")


def line(name: str, picture: np.ndarray, corrupt: Callable | None) -> str:
    """One row of the table."""
    theirs, function = COUNTERPARTS[name]
    scaled = picture.astype(np.float32) / 255
    ours, other = getattr(degradations, name)(p=1.0), getattr(A, theirs)(p=1.0)
    calls = [lambda: ours(image=scaled), lambda: other(image=picture)]
    if corrupt and function:
        calls.append(lambda: corrupt(picture, corruption_name=function, severity=3))
    seconds = np.array([[timed(call) for call in calls] for _ in range(ROUNDS + 1)])[1:]
    speed = SIDE * SIDE / 1e6 / np.median(seconds, axis=0)
    ratio = np.median(seconds / seconds[:, :1], axis=0)
    row = f"{name:16s}{speed[0]:8.1f}  {f'{theirs} {speed[1]:.1f} ({ratio[1]:.2f})':34s}"
    return row + (f"{function} {speed[2]:.1f} ({ratio[2]:.2f})" if len(calls) == 3 else "-")


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def tile_milliseconds(task: str, recipe: list, picture: np.ndarray) -> float:
    """Mean time of `degrade` on a tile with the task's recipe, over many draws."""
    tile = picture[:TILE, 100 : 100 + TILE].astype(np.float32) / 255
    degrade(tile, recipe, rng_for(0, task, "warm-up", 0))
    started = time.perf_counter()
    for number in range(TILES):
        degrade(tile, recipe, rng_for(0, task, "tile", number))
    return (time.perf_counter() - started) / TILES * 1e3


def imagecorruptions() -> Callable | None:
    """The peer's entry function, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from imagecorruptions import corrupt
        except ImportError as error:
            print(f"imagecorruptions left out: {error}")
            return None
    return corrupt


if __name__ == "__main__":
    main()
