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
from pathlib import Path

import cv2
import numpy as np
import ray.data

from degradations.recipe import check_recipe, degrade, rng_for
from ipt.pixels import to_levels, to_unit
from pipelines.cluster.connection import connected
from pipelines.cluster.storage import Storage
from pipelines.common.files import replace_folder
from pipelines.common.params import ParamsError, Synthesize, Task, load_params
from pipelines.common.paths import CLEAN, SHARDS
from pipelines.common.stage import command, run
from pipelines.data.rows import SHARD_COLUMNS, open_tiles, read_tiles, row_schema, write_rows


def synthesize(name: str, task: Task, settings: Synthesize, seed: int, clean: str, target: Path) -> dict[str, int]:
    """Write the shards of task `name` under `target`, replacing what is there; returns rows by split.

    `clean` is where all nodes read the folder of clean tiles. `target`/train and `target`/val hold Parquet files of
    `SHARD_COLUMNS`, written here: no node needs to see `target`.
    """
    jobs = []
    for split in ("train", "val"):
        tiles = open_tiles(f"{clean}/{split}.parquet").metadata.num_rows
        jobs += [{"split": split, "start": start} for start in range(0, tiles, settings.tiles_per_shard)]
    make = functools.partial(make_shard, clean=clean, name=name, task=task, settings=settings, seed=seed)
    rows = {"train": 0, "val": 0}
    with replace_folder(target) as folder:
        for split in rows:
            (folder / split).mkdir()
        for shard in ray.data.from_items(jobs, override_num_blocks=len(jobs)).map(make).iter_rows():
            number = shard["start"] // settings.tiles_per_shard
            (folder / shard["split"] / f"{number:05d}.parquet").write_bytes(shard["content"])
            rows[shard["split"]] += shard["rows"]
    return rows


def make_shard(job: dict, *, clean: str, name: str, task: Task, settings: Synthesize, seed: int) -> dict:
    """Degrade the clean tiles `start` and up of a split; returns the job with `rows` and the shard's `content`."""
    cv2.setNumThreads(1)  # Ray runs one of these per core
    numbers = np.arange(job["start"], job["start"] + settings.tiles_per_shard)
    rows = [
        shard_row(name, task, tile, variant, seed)
        for tile in read_tiles(f"{clean}/{job['split']}.parquet", numbers)
        for variant in range(settings.variants)
    ]
    # Shuffled, so that the row group a trainer reads at once is not all from one photograph.
    rng_for(seed, name, f"order of {job['split']} {job['start']}", 0).shuffle(rows)
    content = io.BytesIO()
    height, width = rows[0]["clean"].shape[:2]
    write_rows(content, rows, row_schema(SHARD_COLUMNS, height, width), settings.row_group_rows)
    return job | {"rows": len(rows), "content": content.getvalue()}


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
    with connected():
        clean = Storage(params.ray.storage).publish(CLEAN)
        rows = synthesize(name, params.tasks[name], params.synthesize, params.seed, clean, SHARDS / name)
    print(f"synthesize {name}: {rows['train']} training and {rows['val']} held-out pairs in {SHARDS / name}")


if __name__ == "__main__":
    run(main)
