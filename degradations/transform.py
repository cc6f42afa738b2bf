"""The bridge to albumentations: a transform that draws numbers for a pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import albumentations as A
import numpy as np

from .contract import Bounds, Range, check_range


class Damage(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations says nothing of its types
    """An albumentations transform whose every argument is a range that one number is drawn from.

    A subclass names its pure function, the bounds of its parameters, and spells the arguments of
    its constructor out, so that an unknown name is a TypeError and serialisation finds them all.
    Numbers are drawn uniformly with albumentations' own per-transform generator, so
    `set_random_seed` or `A.Compose(..., seed=...)` determines the bytes. Images: float32
    (H, W, 3) RGB in [0, 1]; put `A.ToFloat(max_value=255)` before for 8-bit ones.
    """

    function: ClassVar[Callable[..., np.ndarray]]
    bounds: ClassVar[Bounds]

    def __init__(self, p: float, **ranges: Range) -> None:
        super().__init__(p=check_range(f"{type(self).__name__}.p", p, (0.0, 1.0))[0])
        for name, value in ranges.items():
            where = f"{type(self).__name__}.{name}"
            setattr(self, name, check_range(where, value, self.bounds[name]))

    def get_params(self) -> dict[str, Any]:
        """Draw this call's numbers, and the seed for what the function draws itself."""
        drawn = {name: float(self.random_generator.uniform(*getattr(self, name))) for name in self.bounds}
        return {**drawn, "rng_seed": int(self.random_generator.integers(2**63))}

    def apply(self, img: np.ndarray, rng_seed: int, **params: Any) -> np.ndarray:
        """Damage one float32 (H, W, 3) RGB image in [0, 1] with the numbers drawn."""
        numbers = {name: params[name] for name in self.bounds}
        return type(self).function(img, np.random.default_rng(rng_seed), **numbers)

    @property
    def severity(self) -> dict[str, float]:
        """The numbers drawn in the last call, by parameter name; empty when it was skipped."""
        return {name: self.params[name] for name in self.bounds if name in self.params}
