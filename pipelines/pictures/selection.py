"""Which pictures are used: readable, large enough, no duplicates; split into train and val."""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ipt.files import replace_file
from ipt.photos.images import ImageError
from pipelines.common.processes import Each
from pipelines.pictures.cutting import promised_tiles
from pipelines.pictures.duplicates import Seen, perceptual_hash
from pipelines.pictures.sources import Picture, SourceError, read_small_picture

_HASH_SIDE = 64  # pixels; the hash looks at 32 x 32

Usable = tuple[Picture, int | None]  # with its perceptual hash; None for drawn ones, never alike
Bad = tuple[Picture, str]  # with the reason


def inspect_pictures(pictures: list[Picture], tile: int, stride: int, each: Each) -> tuple[list[Usable], list[Bad]]:
    """Look at every file once, and tell the usable pictures, with the number of their tiles, from the bad.

    Bad is what cannot be read and what is smaller than a tile of `tile` pixels at all its scales.
    Both lists keep the order of `pictures`. `each` is `map`, or what does the same elsewhere.
    """
    usable: list[Usable] = []
    bad: list[Bad] = []
    found = each(partial(_inspect, tile=tile, stride=stride), pictures)
    for picture, (tiles, code, reason) in zip(pictures, found, strict=True):
        if reason is None:
            usable.append((replace(picture, tiles=tiles), code))
        else:
            bad.append((picture, reason))
    return usable, bad


def _inspect(picture: Picture, tile: int, stride: int) -> tuple[int, int | None, str | None]:
    """Tiles and hash of a file's picture (None for a drawn one), and why it cannot be used, if so."""
    if picture.path is None:
        return promised_tiles(picture, (picture.size, picture.size), tile, stride), None, None
    try:
        thumbnail, size = read_small_picture(picture, _HASH_SIDE)
    except ImageError as error:
        return 0, None, str(error)
    tiles = promised_tiles(picture, size, tile, stride)
    if not tiles:
        scales = ", ".join(map(str, picture.scales))
        found = f"{size[1]} x {size[0]} pixels"
        return 0, None, f"{found}: smaller than a tile of {tile} pixels at every scale ({scales})"
    return tiles, perceptual_hash(thumbnail), None


def check_bad(pictures: list[Picture], bad: list[Bad], max_share: float, report: Path) -> None:
    """Raise SourceError when a source has nothing usable or more than `max_share` (0 to 1) bad.

    The reasons are then written to `report`, which the message names.
    """
    every = Counter(picture.source for picture in pictures)
    for source, count in Counter(picture.source for picture, _ in bad).items():
        if count == every[source]:
            limit = "so no usable one is left"
        elif count > max_share * every[source]:
            limit = f"more than the share of {max_share:g} that prepare.max_bad_share allows"
        else:
            continue
        with replace_file(report) as path:
            write_quarantine(path, bad)
        raise SourceError(
            f"prepare.sources: {source}: {count} of {every[source]} pictures are bad, {limit}; "
            f"see the reasons in {report} and mend or remove those files"
        )


def write_quarantine(path: Path, bad: list[Bad]) -> None:
    """Write the bad pictures as CSV (path, reason); the header alone when there are none."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "reason"])
        writer.writerows([picture.path, reason] for picture, reason in bad)


def without_duplicates(usable: list[Usable], bits: int) -> list[Picture]:
    """The pictures whose hash is more than `bits` (of 64) from that of every earlier one kept."""
    seen = Seen(bits)
    return [picture for picture, code in usable if code is None or seen.add(code)]


def split_pictures(pictures: list[Picture], val_share: float, seed: int) -> dict[str, list[Picture]]:
    """Split each source's pictures into {"train": ..., "val": ...} by a seeded draw.

    `val_share` (0 to 1) of a source's pictures go to val, rounded, but of two or more at least one
    to each side; a single one goes to train. Raises SourceError when val would be empty.
    """
    splits: dict[str, list[Picture]] = {"train": [], "val": []}
    own: dict[str, list[Picture]] = {}
    for picture in pictures:
        own.setdefault(picture.source, []).append(picture)
    for source, members in own.items():
        count = min(max(round(val_share * len(members)), 1), len(members) - 1)
        rng = np.random.default_rng((seed, zlib.crc32(f"split {source}".encode())))
        held_out = set(rng.permutation(len(members))[:count].tolist())
        for index, picture in enumerate(members):
            splits["val" if index in held_out else "train"].append(picture)
    if not splits["val"]:
        raise SourceError(
            "prepare.sources: expected two or more different pictures in some source, so that one "
            f"can be held out for validation; got {len(pictures)} in all; add pictures or a source"
        )
    return splits
