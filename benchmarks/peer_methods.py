"""What people have without us, by damage: names, what each is told, and functions of an image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks import dark_channel
from benchmarks.ffdnet import FFDNet
from ipt.model import InstructIPT
from ipt.pixels import to_levels
from ipt.restoring.restore import Quality, restorer
from pipelines.common.params import RealPairs

Restore = Callable[[np.ndarray], np.ndarray]  # RGB (H, W, 3), float32 in [0, 1], to the same or uint8
TRUTH = "the truth: best of {} for each picture"
STEPS = 10  # of Richardson-Lucy


@dataclass(frozen=True)
class Method:
    """A row of the table. Where there are several variants, an oracle takes the best of them for each picture."""

    name: str
    told: str
    build: Callable[[], Sequence[Restore]]  # the variants; imports of what may be missing belong in here
    made_of: str = ""  # what its results hang on beside name and pictures: the model


def methods(pairs: RealPairs, model: InstructIPT, fingerprint: str, qualities: Sequence[Quality],
            ffdnet: Sequence[Path]) -> list[Method]:  # fmt: skip
    """All rows for those pairs: the degraded pictures, what people have, this project."""
    if pairs.sigma is not None:
        peers = denoisers(pairs.sigma) + [published(path, pairs.sigma) for path in ffdnet]
    else:
        peers = {"dehaze": DEHAZERS, "deblur": DEBLURRERS, "derain": DERAINERS}[pairs.task]
    ours = [
        Method(
            "Instruct-IPT" if quality == "normal" else f"Instruct-IPT, `--quality {quality}`",
            f"the task, {pairs.task}",
            lambda quality=quality: [restorer(model, [pairs.task], quality=quality)],
            fingerprint,
        )
        for quality in qualities
    ]
    return [Method("degraded", "", lambda: [lambda image: image]), *peers, *ours]


def one_of(restore: Callable[..., np.ndarray], *settings: object) -> Callable[[], list[Restore]]:
    """A `build` of `restore` with each of the settings, given after the image."""
    return lambda: [lambda image, setting=setting: restore(image, setting) for setting in settings]


def denoisers(sigma: float) -> list[Method]:
    """For Gaussian noise whose sigma, in grey levels, all of them are told."""

    def wavelets() -> list[Restore]:
        import pywt  # noqa: F401  denoise_wavelet tells of its absence only when called
        from skimage.restoration import denoise_wavelet

        return [
            functools.partial(
                denoise_wavelet, sigma=sigma / 255, convert2ycbcr=True, rescale_sigma=True, channel_axis=2
            )
        ]

    def bm3d() -> list[Restore]:
        from bm3d import bm3d_rgb

        return [lambda image: bm3d_rgb(image, sigma / 255)]

    return [
        Method("OpenCV non-local means, h = sigma / 2", "sigma", one_of(opencv_means, sigma / 2)),
        Method("scikit-image non-local means, h = 0.6 sigma", "sigma", one_of(skimage_means, sigma)),
        Method("scikit-image wavelets, BayesShrink, YCbCr", "sigma", wavelets),
        Method("BM3D", "sigma", bm3d),
    ]


def published(path: Path, sigma: float) -> Method:
    """FFDNet with the weights of that file."""
    return Method(f"{path.stem}, 0.85 M parameters", "sigma", lambda: [FFDNet(path, sigma)])


def opencv_means(image: np.ndarray, h: float) -> np.ndarray:
    """Windows of 7 and 21 pixels, which OpenCV recommends, the same h (grey levels) for lightness and colour."""
    bgr = cv2.cvtColor(to_levels(image), cv2.COLOR_RGB2BGR)
    return cv2.cvtColor(cv2.fastNlMeansDenoisingColored(bgr, None, h, h, 7, 21), cv2.COLOR_BGR2RGB)


def skimage_means(image: np.ndarray, sigma: float) -> np.ndarray:
    """With the numbers of scikit-image's example; `sigma` in grey levels."""
    from skimage.restoration import denoise_nl_means

    size = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
    return denoise_nl_means(image, h=0.6 * sigma / 255, sigma=sigma / 255, channel_axis=2, **size)


def unsharp(image: np.ndarray, setting: tuple[float, float]) -> np.ndarray:
    """Unsharp masking by (radius in pixels, amount)."""
    from skimage.filters import unsharp_mask

    return unsharp_mask(image, *setting, channel_axis=2)


def richardson_lucy(image: np.ndarray, sigma: float) -> np.ndarray:
    """STEPS steps with a Gaussian kernel of `sigma` pixels, borders mirrored, each channel by itself."""
    from skimage.restoration import richardson_lucy as deconvolve

    margin = int(np.ceil(3 * sigma))
    ramp = np.arange(-margin, margin + 1)
    line = np.exp(-(ramp**2) / (2 * sigma**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    inner = slice(margin, -margin)
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    return np.stack([deconvolve(wide[..., c], kernel, num_iter=STEPS)[inner, inner] for c in range(3)], 2)


def median(image: np.ndarray, side: int) -> np.ndarray:
    """Over `side` x `side` pixels."""
    return cv2.medianBlur(to_levels(image), side)


def bilateral(image: np.ndarray, levels: float) -> np.ndarray:
    """Over 9 x 9 pixels, spatial sigma 5 pixels, colour sigma in grey levels."""
    return cv2.bilateralFilter(to_levels(image), 9, levels, 5)


DEHAZERS = [Method("dark channel prior, guided filter", "", lambda: [dark_channel.dehaze])]
UNSHARP = [(radius, amount) for radius in (1, 2, 3) for amount in (0.5, 1, 2)]
KERNELS = (0.5, 1, 1.5, 2, 3)
DEBLURRERS = [
    Method("unsharp masking, radius 1, amount 1", "", one_of(unsharp, (1, 1))),
    Method("unsharp masking, radius 1 to 3, amount 0.5 to 2", TRUTH.format(len(UNSHARP)), one_of(unsharp, *UNSHARP)),
    Method(
        f"Richardson-Lucy, {STEPS} steps, Gaussian of 0.5 to 3 pixels",
        TRUTH.format(len(KERNELS)),
        one_of(richardson_lucy, *KERNELS),
    ),
]
DERAINERS = [
    Method("median, 3 or 5 pixels", TRUTH.format(2), one_of(median, 3, 5)),
    Method("bilateral filter, sigma 20, 40 or 80", TRUTH.format(3), one_of(bilateral, 20, 40, 80)),
    Method("OpenCV non-local means, h = 3, 10 or 20", TRUTH.format(3), one_of(opencv_means, 3, 10, 20)),
]
