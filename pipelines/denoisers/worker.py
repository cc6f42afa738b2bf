"""What runs in each Ray Train worker of the stage `diffusion`: `ipt.diffusion.denoising` on this worker's crops."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ipt.diffusion.denoising import denoising_step, draw_intervals, draw_timesteps
from ipt.pixels import to_unit
from pipelines.cluster.worker import WorkerSettings, start_worker
from pipelines.common.params import Diffusion
from pipelines.data.row_groups import RowGroups
from pipelines.denoisers.crops import SEGMENT, read_crops
from pipelines.denoisers.networks import Design, denoiser_training, new_denoiser, training_scheduler
from pipelines.training.groups import mixed_seed
from pipelines.training.stream import Schedule, worker_items


@dataclass(frozen=True)
class DiffusionJob:
    """All that a worker of the stage `diffusion` needs to know."""

    worker: WorkerSettings
    settings: Diffusion
    design: Design
    tiles: RowGroups


def diffusion_worker(config: dict[str, DiffusionJob]) -> None:
    """What each Ray Train worker runs, with its `job`; every rank makes the same number of steps and reports."""
    job = config["job"]
    settings, seed = job.settings, job.worker.seed
    worker = start_worker(
        job.worker, lambda: new_denoiser(settings, job.design), lambda device: denoiser_training(settings)
    )
    state, rank, scheduler = worker.state, worker.rank, training_scheduler(job.design)
    schedule = Schedule(settings.steps, settings.batch, settings.checkpoint_every, SEGMENT, worker.workers)
    read = functools.partial(worker.patience, read_crops, job.tiles, settings.crop, seed)
    min_snr = None if settings.min_snr == "none" else settings.min_snr
    table, count = state.model.get_buffer("interval_of_timestep").cpu(), schedule.count(rank)
    recent, started = [], time.perf_counter()
    for crops in worker_items(read, schedule, state.step, rank):
        clean = torch.from_numpy(to_unit(crops["clean"]))  # (B, 3, crop, crop)
        generator = torch.Generator().manual_seed(mixed_seed(seed, state.step, rank))
        timesteps = draw_timesteps(table, count, generator)
        noise = torch.randn(clean.shape, generator=generator)
        interval = draw_intervals(table[timesteps], settings.intervals, settings.outside, generator)
        order = interval.argsort(stable=True)  # in runs, which are faster; the errors are told by noise level again
        batch = (each.to(worker.device) for each in (clean, timesteps[order], noise))
        met = interval[order].to(worker.device)
        errors = denoising_step(state, worker.network, scheduler, *batch, min_snr=min_snr, interval=met)
        recent.append(errors.cpu()[order.argsort()])
        last = state.step == settings.steps
        if state.step % settings.log_every == 0 or last:
            seconds = time.perf_counter() - started
            row = _row(torch.stack(recent), settings.intervals, seconds, worker.workers)
            worker.checkpoints.history.steps.append({"step": state.step} | row)
            worker.log(row)
            recent, started = [], time.perf_counter()
        if state.step % settings.checkpoint_every == 0 or last:
            worker.checkpoints.write()
    if state.step < settings.steps:
        raise RuntimeError(f"training data ended after step {state.step} of {settings.steps}")
    worker.checkpoints.finish()


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
