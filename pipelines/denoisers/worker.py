"""What runs in each Ray Train worker of the stage `diffusion`: `ipt.diffusion.denoising` on this worker's crops."""

from __future__ import annotations

import functools
import time

import numpy as np
import pyarrow as pa
import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor

from ipt.diffusion.denoising import denoising_step, draw_timesteps
from ipt.training.fit import TrainingState
from pipelines.cluster.checkpoints import Checkpoints
from pipelines.cluster.storage import Patience, Storage
from pipelines.common.params import Diffusion
from pipelines.denoisers.crops import SEGMENT, read_crops
from pipelines.denoisers.networks import denoiser_training, new_denoiser, new_scheduler
from pipelines.training.stream import Split, parts


def diffusion_worker(config: dict) -> None:
    """Every rank makes the same number of steps and reports."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    settings = Diffusion(**config["diffusion"])
    torch.set_num_threads(int(config["threads"]))
    torch.manual_seed(config["seed"])
    device = get_device()
    denoiser, scheduler = new_denoiser(settings), new_scheduler(settings)
    network = prepare_model(denoiser)
    network.train()
    state = TrainingState(denoiser, denoiser_training(settings))
    send = config["progress"].put
    storage = Storage(config["storage"])
    patience = Patience(storage.place, config["storage_patience"], lambda text: send({"tell": text}))
    checkpoints = Checkpoints(state, storage, config["run"], patience)
    checkpoints.restore()
    if rank == 0 and state.step:
        send({"tell": f"continues from step {state.step} of {settings.steps}, workers: {workers}"})
    split = Split(settings.steps, settings.batch, settings.checkpoint_every, SEGMENT, workers)
    read = functools.partial(patience, read_crops, config["tiles"], settings.crop, config["seed"])
    min_snr = None if settings.min_snr == "none" else settings.min_snr
    table, share = denoiser.interval_of_timestep.cpu(), split.share(rank)
    recent, started = [], time.perf_counter()
    for crops in parts(read, split, state.step, rank):
        clean = to_images(crops, settings.crop)
        generator = torch.Generator().manual_seed(_mixed(config["seed"], state.step, rank))
        timesteps = draw_timesteps(table, share, generator)
        noise = torch.randn(clean.shape, generator=generator)
        batch = (each.to(device) for each in (clean, timesteps, noise))
        recent.append(denoising_step(state, network, scheduler, *batch, min_snr=min_snr).cpu())
        last = state.step == settings.steps
        if state.step % settings.log_every == 0 or last:
            seconds = time.perf_counter() - started
            row = _row(torch.stack(recent), settings.intervals, seconds, workers)
            checkpoints.history.steps.append({"step": state.step} | row)
            if rank == 0:
                send({"step": state.step} | row)
            recent, started = [], time.perf_counter()
        if state.step % settings.checkpoint_every == 0 or last:
            checkpoints.write()
    if state.step < settings.steps:
        raise RuntimeError(f"training data ended after step {state.step} of {settings.steps}")
    if checkpoints.written is None:  # continued after the last step
        checkpoints.write()


def to_images(table: pa.Table, side: int) -> Tensor:
    """The crops of a table of `clean_crops`, (B, 3, side, side) in [0, 1]."""
    levels = np.stack([np.frombuffer(pixels, np.uint8) for pixels in table["pixels"].to_pylist()])
    return torch.from_numpy(levels).view(-1, side, side, 3).permute(0, 3, 1, 2).float() / 255


def _row(errors: Tensor, intervals: int, seconds: float, workers: int) -> dict[str, float]:
    """What is logged of some steps, of the errors (steps, samples) of each: mean over samples and workers."""
    means = errors.unflatten(1, (intervals, -1)).mean((0, 2))  # a batch is sorted by interval
    if torch.distributed.is_initialized() and workers > 1:
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        means = means.to(device)
        torch.distributed.all_reduce(means)
        means = means.cpu() / workers
    return (
        {"loss": means.mean().item()}
        | {f"loss/interval-{number}": value for number, value in enumerate(means.tolist())}
        | {"samples_per_second": workers * errors.numel() / seconds}
    )


def _mixed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
