"""Stage: clean tiles to the shards of one task, `python -m pipelines.synthesize --task derain`.

A row's bytes depend on (seed, task, image, variant) and the recipe; a shard's on its rows. Workers only decide who
makes which shard, so the result is the same for any number of them.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from degradations.recipe import check_recipe, degrade, rng_for
from ipt.pixels import to_levels, to_unit
from pipelines.cluster.connection import connected
from pipelines.cluster.naming import keeping, published
from pipelines.cluster.spread import spread
from pipelines.cluster.storage import Patience, Storage
from pipelines.common.files import replace_folder
from pipelines.common.manifest import DataFile, write_manifest
from pipelines.common.params import Params, ParamsError, Synthesize, Task, load_params
from pipelines.common.paths import CLEAN, SHARDS
from pipelines.common.stage import command, run
from pipelines.data.row_groups import RowGroups
from pipelines.data.rows import SHARD_COLUMNS, describe, row_schema, write_rows
from pipelines.data.tiles import open_tiles, read_tiles


def synthesize(
    name: str, task: Task, params: Params, tiles: dict[str, RowGroups], target: Path, storage: Storage
) -> dict[str, int]:
    """Make the shards of task `name` of the tiles of each split, replacing what is in `target`; returns rows by split.

    `target` gets Parquet files of `SHARD_COLUMNS`, SPLIT/NUMBER.parquet, written here: no node needs to see it. Where
    the storage is a shared one, those who make them write them there, and `target` gets the manifest.
    """
    settings = params.synthesize
    jobs = shard_jobs(tiles, settings)
    make = functools.partial(make_shard, tiles=tiles, name=name, task=task, settings=settings, seed=params.seed)
    rows = dict.fromkeys(tiles, 0)
    with keeping(storage, target), replace_folder(target) as folder:
        if storage.only_shared:
            keep = functools.partial(keep_shard, make=make, place=storage.place, seconds=params.ray.storage_patience)
            files = list(spread(keep, jobs))
            write_manifest(folder, files)
            for file in files:
                rows[file.split] += sum(file.rows)
            return rows
        for split in tiles:
            (folder / split).mkdir()
        for shard in spread(make, jobs):
            (folder / shard["name"]).write_bytes(shard["content"])
            rows[shard["split"]] += shard["rows"]
    return rows


def shard_jobs(tiles: dict[str, RowGroups], settings: Synthesize) -> Iterator[dict]:
    """Of each shard, what `make_shard` makes it of: its split and the first of its tiles."""
    for split, of_split in tiles.items():
        for start in range(0, int(of_split.rows.sum()), settings.tiles_per_shard):
            yield {"split": split, "start": start}


def keep_shard(job: dict, *, make: Callable[[dict], dict], place: str, seconds: float) -> DataFile:
    """Make a shard and write it to the storage at `place`, which may be away for some seconds."""
    patience = Patience(place, seconds, print)
    shard = patience(make, job)
    file = describe(shard["name"], shard["content"])
    patience(Storage(place).keep, file.address, shard["content"])
    return file


def make_shard(
    job: dict, *, tiles: dict[str, RowGroups], name: str, task: Task, settings: Synthesize, seed: int
) -> dict:
    """Degrade the clean tiles `start` and up of a split; returns the job with `name`, `rows` and `content`."""
    cv2.setNumThreads(1)  # Ray runs one of these per core
    numbers = np.arange(job["start"], job["start"] + settings.tiles_per_shard)
    rows = [
        shard_row(name, task, tile, variant, seed)
        for tile in read_tiles(tiles[job["split"]], numbers)
        for variant in range(settings.variants)
    ]
    # Shuffled, so that the row group a trainer reads at once is not all from one photograph.
    rng_for(seed, name, f"order of {job['split']} {job['start']}", 0).shuffle(rows)
    content = io.BytesIO()
    height, width = rows[0]["clean"].shape[:2]
    write_rows(content, rows, row_schema(SHARD_COLUMNS, height, width), settings.row_group_rows)
    file = f"{job['split']}/{job['start'] // settings.tiles_per_shard:05d}.parquet"
    return job | {"name": file, "rows": len(rows), "content": content.getvalue()}


def shard_row(name: str, task: Task, tile: dict, variant: int, seed: int) -> dict:
    """The row of one degraded version of a clean tile; a pure function of its arguments."""
    rng = rng_for(seed, name, tile["image_id"], variant)
    row_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}/{tile['image_id']}/{variant}".encode()).digest()[:7])
    degraded, severity = degrade(to_unit(tile["clean"]), task.recipe, rng)
    return {
        "task": name,
        "image_id": tile["image_id"],
        "variant": variant,
        "seed": row_seed,
        "degraded": to_levels(degraded),
        "clean": tile["clean"],
        "height": tile["height"],
        "width": tile["width"],
        "instruction": str(rng.choice(np.array(task.instructions))),
        "severity": json.dumps(severity, sort_keys=True),
    }


def main() -> None:
    """Read params.yaml and make the shards of the task named on the command line."""
    parser = argparse.ArgumentParser(prog=command(), description="Degrade the clean tiles for one task.")
    parser.add_argument("--task", required=True, help="a task of params.yaml")
    name = parser.parse_args().task
    params = load_params()
    if name not in params.tasks:
        raise ParamsError(f"--task {name}: no such task in params.yaml; it has {', '.join(params.tasks)}")
    check_recipe(params.tasks[name].recipe, f"params.yaml.tasks.{name}.recipe")
    storage, target = Storage(params.ray.storage), SHARDS / name
    with connected():
        clean = published(storage, CLEAN)
        tiles = {split: open_tiles(CLEAN / f"{split}.parquet", clean) for split in ("train", "val")}
        rows = synthesize(name, params.tasks[name], params, tiles, target, storage)
    print(f"synthesize {name}: {rows['train']} training and {rows['val']} held-out pairs in {target}")


if __name__ == "__main__":
    run(main)
