"""FFDNet, a published small denoiser, with its authors' weights: MATLAB 7.3 files (HDF5), read by h5py.

Zhang, Zuo & Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising", TIP 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional


class FFDNet:
    """Denoises RGB images (H, W, 3), float32 in [0, 1], of the noise level that it is told, in grey levels."""

    def __init__(self, path: Path, sigma: float) -> None:
        self.layers, self.sigma = read_layers(path), sigma

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The restored image, float32 in [0, 1]."""
        # MATLAB counts columns first: weights come with both sides swapped, so the image is turned the same way.
        x = torch.from_numpy(image.transpose(2, 1, 0).copy())[None]
        width, height = x.shape[2:]
        x = functional.pad(x, (0, height % 2, 0, width % 2), mode="replicate")
        x = functional.pixel_unshuffle(x, 2)
        x = torch.cat([x, torch.full_like(x[:, :1], self.sigma / 255)], 1)
        for weight, bias in self.layers[:-1]:
            x = functional.conv2d(x, weight, bias, padding=1).relu()
        weight, bias = self.layers[-1]
        x = functional.pixel_shuffle(functional.conv2d(x, weight, bias, padding=1), 2)
        return x[0, :, :width, :height].clamp(0, 1).numpy().transpose(2, 1, 0)


def read_layers(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each convolution; a ValueError where they are not those of the colour network."""
    import h5py

    with h5py.File(path) as file:
        layers = [file[reference] for reference in file["net/layers"][:, 0]]
        convolutions = [layer for layer in layers if bytes(layer["type"][()].astype(np.uint8).ravel()) == b"conv"]
        weights = [[file[reference][()] for reference in layer["weights"][:, 0]] for layer in convolutions]
    ends = (weights[0][0].shape[1], weights[-1][0].shape[0]) if weights else None
    if ends != (13, 12):  # four times RGB and the noise level in, four times RGB out
        raise ValueError(f"{path}: expected FFDNet for colour, 13 channels in and 12 out, got {ends}")
    return [(torch.from_numpy(weight).float(), torch.from_numpy(bias).float().ravel()) for weight, bias in weights]
