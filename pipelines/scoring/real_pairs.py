"""Pairs of degraded and clean images that somebody photographed: folders that are measured on, never trained on."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ipt.photos.images import read_image
from ipt.pixels import to_levels, to_unit
from pipelines.common.params import RealPairs


def present(real_pairs: Iterable[RealPairs], teller: str) -> list[RealPairs]:
    """Those whose folder is there; of an absent one `teller` says so."""
    there = []
    for pairs in real_pairs:
        if (Path(pairs.path) / "clean").is_dir():
            there.append(pairs)
        else:
            print(f"{teller}: {pairs.name} skipped: {pairs.path}/clean is not there", flush=True)
    return there


def read_real_pairs(pairs: RealPairs, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(degraded, clean) of each image: same names in degraded/ and clean/, or clean/ with Gaussian noise added.

    The noise of an image depends on (seed, name of the pairs, file name) and is clipped and rounded to 8 bit.
    Hidden files are none of them. Raises FileNotFoundError or ValueError where files are missing or sizes differ.
    """
    folder = Path(pairs.path)
    files = _files(folder / "clean")
    if not files:
        raise FileNotFoundError(f"{folder / 'clean'}: expected images of {pairs.name}, found none")
    if pairs.sigma is None and (alone := {p.name for p in _files(folder / "degraded")} - {p.name for p in files}):
        raise FileNotFoundError(
            f"{folder / 'clean' / min(alone)}: not there, but {folder / 'degraded' / min(alone)} is; the two of a pair "
            f"have the same name ({len(alone)} without their clean one)"
        )
    for path in files:
        clean = read_image(path)
        if pairs.sigma is not None:
            noise = np.random.default_rng([seed, zlib.crc32(f"{pairs.name}/{path.name}".encode())]).normal(
                0, pairs.sigma / 255, clean.shape
            )
            yield to_unit(to_levels(clean + noise)), clean
            continue
        degraded = read_image(folder / "degraded" / path.name)
        if degraded.shape != clean.shape:
            raise ValueError(f"{folder / 'degraded' / path.name}: expected {clean.shape}, got {degraded.shape}")
        yield degraded, clean


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
