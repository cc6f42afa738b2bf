"""Training and sampling of diffusion denoisers, plain or with biases by noise level.

Clean images are (B, 3, H, W) in [0, 1], as everywhere; a denoiser meets them scaled to [-1, 1]. A scheduler is one of
diffusers', or anything that has its `alphas_cumprod`, `add_noise`, `get_velocity`, `set_timesteps` and `step`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ipt.diffusion.noise_levels import prediction_type, schedule_of
from ipt.training.fit import TrainingState, learning_rate_factor


def draw_timesteps(interval_of_timestep: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Timesteps (B,) of a batch that holds every interval equally often, in order; even within an interval.

    So every step trains the biases of every interval. Raises ValueError for a batch that cannot be shared out so.
    """
    intervals = int(interval_of_timestep.max()) + 1
    share, rest = divmod(batch, intervals)
    if rest or not share:
        raise ValueError(f"timesteps: expected a batch that is a multiple of the {intervals} intervals, got {batch}")
    drawn = []
    for interval in range(intervals):
        inside = (interval_of_timestep == interval).nonzero()[:, 0]
        drawn.append(inside[torch.randint(len(inside), (share,), generator=generator)])
    return torch.cat(drawn)


def draw_intervals(own: Tensor, intervals: int, outside: float, generator: torch.Generator) -> Tensor:
    """The interval (B,) whose weights each sample is to meet in training: its `own`, or another for a share `outside`.

    The others are equally likely. An interval that has met its neighbours' noise too goes less astray there (Ma et al.
    2025, "Decouple-Then-Merge", take 10 to 20 %). Raises ValueError for a share outside [0, 1), or where there is no
    other interval.
    """
    if not 0 <= outside < 1 or (outside and intervals < 2):
        raise ValueError(
            f"outside: expected a share from 0 to less than 1, and 0 of a single interval, got {outside} of {intervals}"
        )
    if not outside:
        return own
    moved = torch.rand(len(own), generator=generator) < outside
    other = (own + torch.randint(1, intervals, own.shape, generator=generator)) % intervals
    return torch.where(moved, other, own)


def denoising_target(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the denoiser has to give for scaled images: the noise, the velocity or the image (`prediction_type`)."""
    match prediction_type(scheduler):
        case "epsilon":
            return noise
        case "v_prediction":
            return scheduler.get_velocity(clean, noise, timesteps)
        case _:
            return clean


def min_snr_weights(scheduler: Any, timesteps: Tensor, gamma: float) -> Tensor:
    """Weight (B,) of each sample's error: that of the image times min(SNR, gamma) (Hang et al. 2023)."""
    schedule = schedule_of(scheduler)[timesteps.cpu()]
    snr = schedule / (1 - schedule)
    # The error of the image is that of the noise times 1 / SNR, that of the velocity times 1 / (SNR + 1).
    per_error = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    return (snr.clamp(max=gamma) / per_error[prediction_type(scheduler)]).float().to(timesteps.device)


def denoising_errors(
    network: nn.Module, scheduler: Any, clean: Tensor, timesteps: Tensor, noise: Tensor, **conditions: Any
) -> Tensor:
    """Mean squared error of the prediction, by sample: (B,). `clean` in [0, 1]; `conditions` go to the network."""
    scaled = clean * 2 - 1
    noisy = scheduler.add_noise(scaled, noise, timesteps)
    predicted = network(noisy, timestep=timesteps, return_dict=False, **conditions)[0]
    target = denoising_target(scheduler, scaled, noise, timesteps)
    return (predicted - target).square().mean((1, 2, 3))


def denoising_step(
    state: TrainingState,
    network: nn.Module,
    scheduler: Any,
    clean: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    *,
    min_snr: float | None = None,
    **conditions: Any,
) -> Tensor:
    """One update of all that is trained; returns the unweighted error of each sample, (B,).

    `network` is the state's model, or that as wrapped for distributed training. Raises RuntimeError where the gradient
    is no longer finite.
    """
    settings = state.settings
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * learning_rate_factor(state.step, settings)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=settings.bf16):
        errors = denoising_errors(network, scheduler, clean, timesteps, noise, **conditions)
    weights = 1.0 if min_snr is None else min_snr_weights(scheduler, timesteps, min_snr)
    state.optimizer.zero_grad(set_to_none=True)
    (errors * weights).mean().backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
    if not torch.isfinite(norm):
        raise RuntimeError(
            f"step {state.step + 1}: gradient norm {norm.item()}: training has diverged; lower learning_rate"
        )
    state.optimizer.step()
    state.ema.update_parameters(state.model)
    state.step += 1
    return errors.detach()


@torch.no_grad()
def interval_errors(
    network: nn.Module,
    scheduler: Any,
    interval_of_timestep: Tensor,
    clean: Tensor,
    seed: int,
    **conditions: Any,
) -> list[float]:
    """Mean squared error of the prediction in each interval, each on all images of `clean`.

    Timesteps, even within the interval, and noise depend on `seed` alone: two networks meet the same.
    """
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for interval in range(int(interval_of_timestep.max()) + 1):
        inside = (interval_of_timestep == interval).nonzero()[:, 0].cpu()
        # Evenly spaced, so that the mean hardly depends on which timesteps were drawn.
        place = (torch.arange(len(clean)) + torch.rand((), generator=generator)) / len(clean) * len(inside)
        timesteps = inside[place.long().clamp(max=len(inside) - 1)].to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        parts = zip(clean.split(64), timesteps.split(64), noise.split(64), strict=True)
        of_interval = [denoising_errors(network, scheduler, *part, **conditions) for part in parts]
        errors.append(torch.cat(of_interval).mean().item())
    return errors


@torch.no_grad()
def sample_images(
    denoiser: nn.Module, scheduler: Any, count: int, side: int, seed: int, steps: int, **conditions: Any
) -> Tensor:
    """`count` images (N, 3, side, side) in [0, 1] in `steps` steps of the scheduler, from noise that `seed` gives.

    The same as diffusers' DDIM pipeline gives for a generator with that seed.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(denoiser.parameters()).device
    image = torch.randn((count, 3, side, side), generator=generator).to(device)
    scheduler.set_timesteps(steps)
    # Schedulers that draw noise at each step take the generator; DDIM with eta 0 and DPM-Solver++ draw none.
    for timestep in scheduler.timesteps:
        predicted = denoiser(image, timestep=timestep, return_dict=False, **conditions)[0]
        image = scheduler.step(predicted, timestep, image, generator=generator).prev_sample
    return (image / 2 + 0.5).clamp(0, 1)
