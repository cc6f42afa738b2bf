"""Optional stage: clean tiles to a diffusion denoiser with biases by noise level, trained, measured and registered.

Not part of `make repro`: it has a dvc.yaml of its own (`make diffusion`, docs/diffusion.md). A run keeps its
checkpoints in `ray.storage` until the model is registered: the same command after a failure goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ipt.diffusion.denoiser import IntervalDenoiser, fingerprint
from ipt.diffusion.denoising import interval_errors, sample_images
from ipt.diffusion.wasserstein import sliced_wasserstein
from ipt.pixels import to_unit
from ipt.weights import load_weights
from pipelines.cluster.connection import connected, cpus_per_worker, worker_range
from pipelines.cluster.naming import published
from pipelines.cluster.progress import History
from pipelines.cluster.storage import Storage
from pipelines.cluster.workers import FORMAT, run_workers
from pipelines.common.files import replace_folder, write_json
from pipelines.common.manifest import has_manifest
from pipelines.common.params import Diffusion, Params, load_params
from pipelines.common.paths import CLEAN, DIFFUSION, MANIFEST, METRICS, SAMPLES
from pipelines.common.stage import run
from pipelines.data.png import encode_png
from pipelines.data.row_groups import RowGroups
from pipelines.data.tiles import open_tiles
from pipelines.denoisers.crops import read_crops
from pipelines.denoisers.networks import (
    Design,
    denoiser_training,
    design_of,
    new_denoiser,
    new_network,
    new_scheduler,
    sampler,
    save_pipeline,
    training_scheduler,
)
from pipelines.denoisers.start import KEY, read_start
from pipelines.denoisers.worker import DiffusionJob, diffusion_worker
from pipelines.registry.registration import Measured, Registration, register_model, sampler_signature
from pipelines.tracking.live_run import LiveRun
from pipelines.tracking.store import git_commit
from pipelines.training.beginning import begin

if TYPE_CHECKING:
    from diffusers import UNet2DModel

SUMMARY = METRICS / "diffusion.json"
SHOWN, ACROSS = 64, 8  # images of a grid
TO_CUT_BY = 4096  # training crops that an optimal cut looks at
REQUIREMENTS = ("diffusers", "mlflow", "numpy", "opencv-python-headless", "pandas", "safetensors", "torch")


def plan(params: Params, clean: Path) -> tuple[Design, UNet2DModel | None]:
    """How the denoiser is built, and the plain network that it goes on from, if params name one.

    `clean` is the split of training tiles, as `open_tiles` has it. Raises ValueError for a start that cannot be gone on
    from, and for more intervals than there are timesteps.
    """
    settings = params.diffusion
    if settings.start == "scratch":
        given, network, scheduler = None, new_network(settings), new_scheduler(settings)
    elif Path(settings.start).resolve() == DIFFUSION.resolve():
        raise ValueError(f"{KEY}: expected another folder than {DIFFUSION}, which is made anew; name a copy of it")
    else:
        network, scheduler = read_start(settings)
        given = network

    def crops() -> Tensor:
        tiles = open_tiles(clean, Storage(params.ray.storage).here(clean.parent))
        return clean_crops(settings, params.seed, TO_CUT_BY, tiles)

    return design_of(settings, network, scheduler, crops, params.seed), given


def train(
    params: Params, clean: Path, name: str, design: Design, given: UNet2DModel | None
) -> tuple[History, IntervalDenoiser, str | None]:
    """Train on the tiles of the split `clean`, as `open_tiles` has it: history, averaged denoiser, the MLflow run."""
    settings, storage = params.diffusion, Storage(params.ray.storage)
    fewest, most = worker_range(params.ray)
    for workers in range(max(fewest, 1), max(most, 1) + 1):
        if settings.batch % (workers * settings.intervals):
            raise ValueError(
                f"params.yaml.diffusion.batch: expected a multiple of ray.workers x diffusion.intervals = "
                f"{workers} x {settings.intervals}, got {settings.batch}"
            )
    tiles = open_tiles(clean, published(storage, clean.parent))
    start = None
    if given is not None:
        torch.manual_seed(params.seed)
        start = begin(storage, name, begun_with(given, settings, design), denoiser_training(settings))
    with LiveRun(params, name) as live:
        result = run_workers(
            diffusion_worker,
            lambda worker: DiffusionJob(worker, settings, design, tiles),
            params,
            storage,
            stage="diffusion",
            run=name,
            steps=settings.steps,
            log=live.log,
            start=start,
        )
    with result.checkpoint.as_directory() as folder:
        denoiser = new_denoiser(settings, design)
        load_weights(denoiser, Path(folder) / "ema.safetensors")
        return History.read(Path(folder)), denoiser.eval(), live.run_id


def begun_with(given: UNet2DModel, settings: Diffusion, design: Design) -> IntervalDenoiser:
    """A denoiser with the weights of a plain network, and biases that change nothing yet."""
    denoiser = new_denoiser(settings, design)
    denoiser.denoiser.load_state_dict(denoiser.denoiser.state_dict() | given.state_dict())
    return denoiser


def run_name(params: Params, clean: Path, given: UNet2DModel | None) -> str:
    """A name that is the same for the same params, data and beginning: `diffusion-` and a hash."""
    begun = None if given is None else fingerprint(given)
    digest = hashlib.sha256(json.dumps([FORMAT, params.seed, dataclasses.asdict(params.diffusion), begun]).encode())
    with (clean.parent / MANIFEST if has_manifest(clean.parent) else clean).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"diffusion-{digest.hexdigest()[:12]}"


def clean_crops(settings: Diffusion, seed: int, count: int, tiles: RowGroups) -> Tensor:
    """Crops of clean tiles, (count, 3, side, side) in [0, 1]."""
    return torch.from_numpy(to_unit(read_crops(tiles, settings.crop, seed, 0, count)["clean"]))


def measure(denoiser: IntervalDenoiser, design: Design, params: Params, clean: Path) -> tuple[dict, dict[str, Tensor]]:
    """Errors on held-out crops by interval, distance of samples to them with its noise floor; and the pictures."""
    settings, scheduler = params.diffusion, training_scheduler(design)
    tiles = open_tiles(clean, Storage(params.ray.storage).here(clean.parent))
    real = clean_crops(settings, params.seed, 2 * settings.samples, tiles)
    samples = sample_images(
        denoiser, sampler(design), settings.samples, settings.crop, params.seed, settings.sampling_steps
    )
    first, second = real.split(settings.samples)
    plain = denoiser.backbone().eval()
    table = denoiser.interval_of_timestep
    return {
        "boundaries": list(design.boundaries),
        "error": interval_errors(denoiser, scheduler, table, real, params.seed),
        "error_without_biases": interval_errors(plain, scheduler, table, real, params.seed),
        "distance": sliced_wasserstein(samples, first),
        "distance_real": sliced_wasserstein(second, first),
    }, {"samples": samples, "real": first}


def grid(images: Tensor) -> np.ndarray:
    """The first images side by side, 8 in a row: (H, W, 3) in [0, 1]."""
    shown = images[: min(SHOWN, len(images) // ACROSS * ACROSS)]
    rows = shown.unflatten(0, (-1, ACROSS)).permute(0, 3, 1, 4, 2)  # rows, H, across, W, 3
    return rows.flatten(2, 3).flatten(0, 1).contiguous().numpy()


def register(params: Params, name: str, run_id: str | None, history: History, scores: dict) -> dict:
    """Complete the MLflow run and register the model as a new version; returns where it is."""
    summary = {
        f"{kind}/interval-{i}": v for kind in ("error", "error_without_biases") for i, v in enumerate(scores[kind])
    }
    return register_model(
        Registration(
            run_name=name,
            run_id=run_id,
            params=params,
            rows=history.steps,
            learnt_from=[],
            summary=[Measured(summary | {kind: scores[kind] for kind in ("distance", "distance_real")})],
            reports=[SUMMARY, SAMPLES],
            checkpoint=DIFFUSION,
            code=Path(__file__).parent / "registry" / "diffusion_pyfunc.py",
            requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
            example=pd.DataFrame({"n": [2], "seed": [0], "steps": [4]}),
            card=f"Draws pictures of {params.diffusion.crop} x {params.diffusion.crop} pixels: n, seed, steps.",
            tags={"git_commit": git_commit(), "prediction_type": params.diffusion.prediction},
            model=params.diffusion.model,
            signature=sampler_signature(),
            again="`make diffusion`",
        )
    )


def main() -> None:
    """Train, measure, draw and register."""
    started = time.perf_counter()
    params, clean = load_params(), CLEAN / "train.parquet"
    design, given = plan(params, clean)
    with connected():
        torch.set_num_threads(cpus_per_worker(params.ray))
        name = run_name(params, clean, given)
        history, denoiser, run_id = train(params, clean, name, design, given)
    with replace_folder(DIFFUSION) as folder:
        save_pipeline(denoiser, design, folder)
    scores, pictures = measure(denoiser, design, params, CLEAN / "val.parquet")
    write_json(SUMMARY, scores | {"seconds": round(time.perf_counter() - started, 1)})
    with replace_folder(SAMPLES) as folder:
        for title, images in pictures.items():
            (folder / f"{title}.png").write_bytes(encode_png(grid(images)))
    result = register(params, name, run_id, history, scores)
    Storage(params.ray.storage).remove(name)  # all is kept elsewhere: a forced rerun starts anew
    print(f"diffusion: {result['model']} version {result['version']}, samples in {SAMPLES}, scores in {SUMMARY}")


if __name__ == "__main__":
    run(main, __doc__)
