"""PSNR and SSIM as the field reports them: RGB in [0, 1], full image, no border crop, 8-bit rounded."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from ipt.pixels import to_levels


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of (H, W, 3) images in [0, 1] after rounding to 8 bit.

    100 where the images are equal, so that a mean over images stays a number.
    """
    error = np.mean(np.square(to_levels(image).astype(np.float64) - to_levels(clean)))
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(image: np.ndarray, clean: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5) of (H, W, 3) images, mean over channels.

    Needs at least 11 x 11 pixels.
    """
    return float(
        structural_similarity(
            to_levels(image).astype(np.float32),  # of integers it computes in float64, in twice the time
            to_levels(clean).astype(np.float32),
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
