"""The diffusers network and schedulers that the block `diffusion` of params.yaml describes.

diffusers is imported where it is used: its import makes folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipt.diffusion.denoiser import IntervalDenoiser, modulate_denoiser, save_adapter
from ipt.training.fit import TrainingSettings
from pipelines.common.params import Diffusion

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, DDPMScheduler

TIMESTEPS = 1000


def new_scheduler(settings: Diffusion) -> DDPMScheduler:
    """To train with: the noise of Ho et al. 2020."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(TIMESTEPS, prediction_type=settings.prediction)


def new_sampler(settings: Diffusion) -> DDIMScheduler:
    """To sample with: DDIM on the same noise."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(new_scheduler(settings).config)


def save_pipeline(denoiser: IntervalDenoiser, settings: Diffusion, folder: Path) -> None:
    """Write a diffusers pipeline of the plain backbone, with the adapter beside its network in unet/."""
    from diffusers import DDIMPipeline

    DDIMPipeline(denoiser.backbone(), new_sampler(settings)).save_pretrained(folder)
    save_adapter(denoiser, folder / "unet")


def new_denoiser(settings: Diffusion) -> IntervalDenoiser:
    """A UNet with biases for each interval of noise level, untrained; attention at its lowest resolution."""
    from diffusers import UNet2DModel

    levels = len(settings.channels)
    network = UNet2DModel(
        sample_size=settings.crop,
        layers_per_block=1,
        block_out_channels=settings.channels,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
    )
    return modulate_denoiser(network, new_scheduler(settings), settings.intervals, settings.rank, settings.layers)


def denoiser_training(settings: Diffusion) -> TrainingSettings:
    """The numbers of its training."""
    return TrainingSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        bias_learning_rate=settings.bias_learning_rate,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        ema_decay=settings.ema_decay,
        task_weights=(),
        bf16=False,
    )
