"""PSNR and SSIM of models on pairs of images: held-out tiles or benchmark folders.

RGB in [0, 1], full image, no border crop, 8-bit rounded, mean over images.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ipt.metrics import psnr, ssim, to_levels
from ipt.model import InstructIPT
from ipt.photos.images import read_image
from ipt.pixels import to_unit
from ipt.restoring.restore import restore_image
from pipelines.common.params import Benchmark


def score_pairs(models: dict[str, InstructIPT], task: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Mean PSNR (dB) and SSIM of the degraded images and of each model's restored ones."""
    values: dict[str, list[tuple[float, float]]] = {output: [] for output in ("degraded", *models)}
    for degraded, clean in pairs:
        values["degraded"].append((psnr(degraded, clean), ssim(degraded, clean)))
        for name, model in models.items():
            restored = restore_image(model, degraded, task=task)
            values[name].append((psnr(restored, clean), ssim(restored, clean)))
    means = {output: np.mean(rows, axis=0) for output, rows in values.items()}
    return {
        "images": len(values["degraded"]),
        **{
            output: {"psnr": round(float(mean[0]), 2), "ssim": round(float(mean[1]), 4)}
            for output, mean in means.items()
        },
    }


def present(benchmarks: Iterable[Benchmark], teller: str) -> list[Benchmark]:
    """The benchmarks whose folder is there; of an absent one `teller` says so."""
    there = []
    for benchmark in benchmarks:
        if (Path(benchmark.path) / "clean").is_dir():
            there.append(benchmark)
        else:
            print(f"{teller}: benchmark {benchmark.name} skipped: {benchmark.path}/clean is not there", flush=True)
    return there


def benchmark_pairs(benchmark: Benchmark, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(degraded, clean) of each image: same names in degraded/ and clean/, or clean/ with Gaussian noise added.

    The noise of an image depends on (seed, benchmark, file name) and is clipped and rounded to 8 bit.
    Raises FileNotFoundError or ValueError where files are missing or sizes differ.
    """
    folder = Path(benchmark.path)
    files = sorted(path for path in (folder / "clean").iterdir() if path.is_file())
    if not files:
        raise FileNotFoundError(f"{folder / 'clean'}: expected images of benchmark {benchmark.name}, found none")
    for path in files:
        clean = read_image(path)
        if benchmark.sigma is not None:
            noise = np.random.default_rng([seed, zlib.crc32(f"{benchmark.name}/{path.name}".encode())]).normal(
                0, benchmark.sigma / 255, clean.shape
            )
            yield to_unit(to_levels(clean + noise)), clean
            continue
        degraded = read_image(folder / "degraded" / path.name)
        if degraded.shape != clean.shape:
            raise ValueError(f"{folder / 'degraded' / path.name}: expected {clean.shape}, got {degraded.shape}")
        yield degraded, clean
