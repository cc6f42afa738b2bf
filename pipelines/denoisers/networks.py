"""The diffusers network and schedulers that the block `diffusion` of params.yaml describes.

diffusers is imported where it is used: its import makes folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ipt.biases.adapters import hold_backbone
from ipt.diffusion.cuts import optimal_boundaries
from ipt.diffusion.denoiser import IntervalDenoiser, save_adapter
from ipt.diffusion.noise_levels import boundaries, noise_intervals, schedule_of
from ipt.network.modulation import modulate, modulated_layers
from ipt.training.fit import TrainingSettings
from pipelines.common.params import Diffusion

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

TIMESTEPS = 1000


@dataclass(frozen=True)
class Design:
    """How a denoiser is built, whatever its weights: plain values that a worker can be told."""

    network: dict[str, Any]  # config of its UNet2DModel
    scheduler: dict[str, Any]  # config of the scheduler that it is trained with
    boundaries: tuple[int, ...]  # the first timestep of each interval but the first


def design_of(
    settings: Diffusion, network: UNet2DModel, scheduler: DDPMScheduler, crops: Callable[[], Tensor], seed: int
) -> Design:
    """The design of a denoiser whose backbone is built as `network`; an optimal cut looks at training `crops`.

    Raises ValueError for intervals that the schedule does not have.
    """
    clean = crops() if settings.cut == "optimal" else None
    try:
        if clean is None:
            found = boundaries(noise_intervals(schedule_of(scheduler), settings.intervals))
        else:
            found = optimal_boundaries(clean, scheduler, settings.intervals, seed)
    except ValueError as error:
        raise ValueError(f"params.yaml.diffusion.intervals: {error}") from error
    return Design(_told(network.config), _told(scheduler.config), tuple(found))


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of diffusers as a file would have it, without its notes on where it comes from."""
    return json.loads(json.dumps({name: value for name, value in config.items() if not name.startswith("_")}))


def new_network(settings: Diffusion) -> UNet2DModel:
    """A plain UNet, untrained; attention at its lowest resolution."""
    from diffusers import UNet2DModel

    levels = len(settings.channels)
    return UNet2DModel(
        sample_size=settings.crop,
        layers_per_block=1,
        block_out_channels=settings.channels,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
    )


def new_scheduler(settings: Diffusion) -> DDPMScheduler:
    """To train a network from scratch with: the noise of Ho et al. 2020."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(TIMESTEPS, prediction_type=settings.prediction)


def new_denoiser(settings: Diffusion, design: Design) -> IntervalDenoiser:
    """A denoiser of that design, untrained, with what biases its intervals have; what does not learn is held."""
    from diffusers import UNet2DModel

    network = UNet2DModel.from_config(design.network)
    denoiser = IntervalDenoiser(network, training_scheduler(design), design.boundaries)
    if settings.rank != 0:
        modulate(network, denoiser.intervals, settings.rank, settings.layers)
    if settings.learn == "biases":
        hold_backbone(denoiser)
    return denoiser


def training_scheduler(design: Design) -> DDPMScheduler:
    """To train with."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(design.scheduler)


def sampler(design: Design) -> DDIMScheduler:
    """To sample with: DDIM on the same noise."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(training_scheduler(design).config)


def save_pipeline(denoiser: IntervalDenoiser, design: Design, folder: Path) -> None:
    """Write a diffusers pipeline of the plain backbone; biases, if there are any, lie beside its network in unet/."""
    from diffusers import DDIMPipeline

    DDIMPipeline(denoiser.backbone(), sampler(design)).save_pretrained(folder)
    if modulated_layers(denoiser):
        save_adapter(denoiser, folder / "unet")


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
