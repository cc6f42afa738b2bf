"""What runs in each Ray Train worker of the stage `diffusion`: `ipt.denoising` on this worker's crops."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor

from ipt.denoising import denoising_step, draw_timesteps
from ipt.training import TrainingState
from pipelines.denoisers import denoiser_training, new_denoiser, new_scheduler
from pipelines.files import write_json
from pipelines.params import Diffusion
from pipelines.progress import History


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
    state, history = TrainingState(denoiser, denoiser_training(settings)), History()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            state.load(Path(folder))
            history = History.read(Path(folder))
    min_snr = None if settings.min_snr == "none" else settings.min_snr
    table, share = denoiser.interval_of_timestep.cpu(), settings.batch // workers
    recent, started, reported = [], time.perf_counter(), 0
    for clean in _crops(settings, state.step, share):
        generator = torch.Generator().manual_seed(_mixed(config["seed"], state.step, rank))
        timesteps = draw_timesteps(table, share, generator)
        noise = torch.randn(clean.shape, generator=generator)
        batch = (each.to(device) for each in (clean, timesteps, noise))
        recent.append(denoising_step(state, network, scheduler, *batch, min_snr=min_snr).cpu())
        last = state.step == settings.steps
        if state.step % settings.log_every == 0 or last:
            seconds = time.perf_counter() - started
            row = _row(torch.stack(recent), settings.intervals, seconds, workers)
            history.steps.append({"step": state.step} | row)
            if rank == 0:
                config["progress"].put({"step": state.step} | row)
            recent, started = [], time.perf_counter()
        if state.step % settings.checkpoint_every == 0 or last:
            reported = _checkpoint(state, history, rank, Path(config["run"]))
    if state.step < settings.steps:
        raise RuntimeError(f"training data ended after step {state.step} of {settings.steps}")
    if not reported:  # continued after the last step
        _checkpoint(state, history, rank, Path(config["run"]))


def _crops(settings: Diffusion, step: int, share: int) -> Iterator[Tensor]:
    """This worker's clean crops from `step` on, (share, 3, side, side) in [0, 1] a step."""
    shard = ray.train.get_dataset_shard("train")
    tables = shard.iter_batches(batch_size=share, batch_format="pyarrow", prefetch_batches=4, drop_last=True)
    for number, table in enumerate(tables):
        # The stream may begin at an earlier checkpoint than the one loaded; `start` says where.
        if table["start"][0].as_py() + number * settings.batch >= step * settings.batch:
            yield to_images(table, settings.crop)


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


def _checkpoint(state: TrainingState, history: History, rank: int, run: Path) -> int:
    """Report the whole state, a barrier for all workers; returns its step."""
    if rank != 0:
        ray.train.report({"step": state.step})
        return state.step
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder))
        history.write(Path(folder))
        ray.train.report({"step": state.step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    write_json(run / "position.json", {"step": state.step})
    return state.step


def _mixed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
