"""How far apart two sets of images are, in the statistics of their patches; no pretrained network is needed."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 512


def sliced_wasserstein(first: Tensor, second: Tensor, patch: int = 8, seed: int = 0) -> float:
    """Sliced Wasserstein distance between the patches of two sets of images, each (N, 3, H, W) in [0, 1].

    Every image is cut into patches without overlap; both clouds of patches are projected onto the same 512 random
    directions of unit length that `seed` gives, and the root mean square distance of the sorted projections is taken
    (Rabin et al. 2011). 0 for equal sets. Two sets of real images have a distance too: the noise floor. Raises
    ValueError for sets of different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"sliced_wasserstein: expected two sets of one shape, got {first.shape} and {second.shape}")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(first.shape[1] * patch**2, DIRECTIONS, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=0)
    sorted_projections = [(_patches(images, patch) @ directions).sort(dim=0).values for images in (first, second)]
    return (sorted_projections[0] - sorted_projections[1]).square().mean().sqrt().item()


def _patches(images: Tensor, side: int) -> Tensor:
    """(N, C, H, W) to (patches, C * side * side)."""
    cut = torch.nn.functional.unfold(images, side, stride=side)
    return cut.transpose(1, 2).flatten(0, 1)
