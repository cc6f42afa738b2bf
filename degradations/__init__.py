"""Damage for photographs: from a clean image to a degraded one, with physics behind it.

The image contract: an image is numpy float32 (H, W, 3) RGB in [0, 1], H and W at least 8. Every
damage is a pure function `f(image, rng, *, ...)` that leaves its input alone and returns such an
image of the same shape, and an albumentations transform of the same name that draws the
function's parameters from ranges. BGR and uint8 do not exist here.
"""

import os
import sys

# albumentations asks pypi.org for its newest version at import unless this is set.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# It also imports torch where that is installed, for one class that nobody here uses: two seconds in every worker.
# None forbids an import, which the types of `sys.modules` do not know.
_without_torch = sys.modules.setdefault("albumentations.pytorch", None) is None  # type: ignore[arg-type]
import albumentations  # noqa: F401

if _without_torch:
    del sys.modules["albumentations.pytorch"]  # whoever wants it can still import it

from .blur import CameraShake, Defocus
from .drops import LensDrops
from .frames import FrameAverage
from .haze import Haze
from .lowlight import LowLight
from .motion import ObjectMotion
from .noise import GaussianNoise, SensorNoise
from .rain import Rain
from .resolution import LowResolution
from .snow import Snow

__all__ = [
    "CameraShake",
    "Defocus",
    "FrameAverage",
    "GaussianNoise",
    "Haze",
    "LensDrops",
    "LowLight",
    "LowResolution",
    "ObjectMotion",
    "Rain",
    "SensorNoise",
    "Snow",
]
