"""Task biases on a diffusion denoiser: its tasks are intervals of noise level."""

from ipt.diffusion.cuts import optimal_boundaries
from ipt.diffusion.denoiser import IntervalDenoiser, export_merged, load_denoiser, modulate_denoiser, save_adapter

__all__ = [
    "IntervalDenoiser",
    "export_merged",
    "load_denoiser",
    "modulate_denoiser",
    "optimal_boundaries",
    "save_adapter",
]
