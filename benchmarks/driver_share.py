"""What the driver has to read, hold and send, by size of the data: `make bench-driver`, into docs/cluster.md.

With a shared storage, here a folder. First the bytes that come to the driver and go from it while `synthesize` makes
real shards, in each of the two forms of a data folder. Then, each size in a process and a Ray of its own, a training's
data of so many rows: manifests that name one real shard under as many names as it takes, so that counts and reading are
real and making them is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import ray
from ray import cloudpickle

from benchmarks.ingest import Peak, private, with_ray
from benchmarks.marks import write_between
from pipelines.cluster.connection import connected
from pipelines.cluster.naming import register
from pipelines.cluster.storage import Storage, content_hash
from pipelines.common.manifest import has_manifest, read_manifest, write_manifest
from pipelines.common.params import load_params
from pipelines.common.paths import MANIFEST
from pipelines.data import shards as reading
from pipelines.data.row_groups import RowGroups
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.data.tiles import open_tiles
from pipelines.synthesize import synthesize
from pipelines.training.groups import open_mix, read_groups

REPORT, BEGIN = Path("docs/cluster.md"), "<!-- driver -->\n"
SIDE, TILES = 128, 1024  # pixels; clean tiles of the shards that are really made
TASK = "denoise"


def make_tiles(folder: Path) -> dict[str, RowGroups]:
    """Tiles of coloured squares, some of them held out."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", TILES), ("val", TILES // 8)):
        squares = rng.integers(0, 256, (count, 8, 8, 3), np.uint8).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)
        rows = [{"image_id": f"{split}/{n}", "source": "squares", "clean": image, "height": SIDE, "width": SIDE}
                for n, image in enumerate(squares)]  # fmt: skip
        write_rows(folder / f"{split}.parquet", rows, row_schema(CLEAN_COLUMNS, SIDE, SIDE), 32)
    return {split: open_tiles(folder / f"{split}.parquet") for split in ("train", "val")}


def through_the_driver(tiles: dict[str, RowGroups], folder: Path, storage: Storage) -> tuple[int, int, float]:
    """Bytes that came to the driver and went from it, bytes of the shards made into `folder`, and seconds."""
    params, passed = load_params(), 0
    real_get, real_put = ray.get, ray.put

    def get(what):
        nonlocal passed
        got = real_get(what)
        passed += len(cloudpickle.dumps(got))
        return got

    def put(what):
        nonlocal passed
        passed += len(cloudpickle.dumps(what))
        return real_put(what)

    ray.get, ray.put = get, put
    try:
        started = time.perf_counter()
        synthesize(TASK, params.tasks[TASK], params, tiles, folder / TASK, storage)
        seconds = time.perf_counter() - started
    finally:
        ray.get, ray.put = real_get, real_put
    if has_manifest(folder / TASK):
        passed += 2 * (folder / TASK / MANIFEST).stat().st_size  # written here, and registered in the storage
        return passed, sum(file.bytes for file in read_manifest(folder / TASK)), seconds
    return passed, sum(path.stat().st_size for path in (folder / TASK).rglob("*.parquet")), seconds


def many_rows(folder: Path, rows: int) -> Path:
    """Manifests of all tasks of params, of `rows` rows together, that name one shard of `folder`/made."""
    (file, *_) = read_manifest(folder / "made" / TASK)
    tasks = load_params().tasks
    for task in tasks:
        count = -(-rows // len(tasks) // sum(file.rows))
        (folder / str(rows) / task).mkdir(parents=True)
        names = (f"train/{number:06d}.parquet" for number in range(count))
        write_manifest(folder / str(rows) / task, [dataclasses.replace(file, name=name) for name in names])
    return folder / str(rows)


def measure(shards: Path, storage: Storage, steps: int) -> dict[str, float]:
    """What a training's driver does with the shards, and how its data comes, in a process that has done nothing yet."""
    params, opened = load_params(), []
    real = reading.open_parquet, pq.read_metadata
    reading.open_parquet = lambda *what: opened.append(what) or real[0](*what)
    pq.read_metadata = lambda *what: opened.append(what) or real[1](*what)
    before, started = private_here(), time.perf_counter()
    for task in params.tasks:
        register(storage, shards / task)
        content_hash(shards / task)
    mix = open_mix(shards, params.tasks, "train", params.seed, dict.fromkeys(params.tasks, storage.place))
    seconds, held = time.perf_counter() - started, private_here() - before
    reading.open_parquet, pq.read_metadata = real
    config = {
        "mix": mix,
        "steps": steps,
        "groups_per_step": params.train.groups_per_step,
        "groups_per_read": params.ray.groups_per_read,
        "read": functools.partial(read_groups, mix, params.ingest),
    }
    with tempfile.TemporaryDirectory(dir=shards.parent) as folder, Peak() as peak, connected():
        measured = with_ray(config, str(Path(folder).resolve()))
    return measured | {
        "rows": sum(int(groups.rows.sum()) for groups in mix.row_groups),
        "shards": sum(len(groups.paths) for groups in mix.row_groups),
        "manifests": sum(path.stat().st_size for path in shards.rglob(MANIFEST)) / 1e6,
        "seconds": seconds,
        "held": held,
        "opened": len(opened),
        "sent": len(pickle.dumps(mix)) / 1e6,
        "driver": peak.driver,
    }


def private_here() -> float:
    """MiB that this process holds for itself."""
    return private(psutil.Process())


def table(synthesis: list[tuple[str, int, int, float]], rows: list[dict[str, float]]) -> str:
    """Both as Markdown."""
    lines = [
        f"Synthesis of {TILES * 9 // 8 * load_params().synthesize.variants:,} rows of {SIDE} x {SIDE} pixels:",
        "",
        "| a data folder holds | bytes of data | through the driver | share | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, passed, data, seconds in synthesis:
        lines.append(f"| {name} | {data / 1e6:.0f} MB | {passed / 1e6:.2f} MB | {passed / data:.3%} | {seconds:.0f} |")
    lines += [
        "",
        "| rows | shards | manifests | opened in | files opened | driver more | driver in all | sent to each reader | "
        "first batch | samples/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        lines.append(
            f"| {each['rows']:,} | {each['shards']:,} | {each['manifests']:.1f} MB | {each['seconds']:.2f} s | "
            f"{each['opened']} | {each['held']:.0f} MiB | {each['driver']:.0f} MiB | {each['sent']:.1f} MB | "
            f"{each['first']:.1f} s | {each['rate']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[6_144, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--steps", type=int, default=640)
    parser.add_argument("--measure", nargs=2, help="one size alone: the folder of its manifests, and the storage")
    parser.add_argument("--no-report", action="store_true", help="print alone")
    given = parser.parse_args()
    if given.measure:
        shards, place = given.measure
        print(json.dumps(measure(Path(shards), Storage(place), given.steps)))
        return
    Path("build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="build") as name:
        folder = Path(name).resolve()
        storage = Storage(str(folder / "storage"))
        with connected():
            tiles = make_tiles(folder / "clean")
            local = through_the_driver(tiles, folder / "files", Storage("runs"))
            stored = through_the_driver(tiles, folder / "made", storage)
        rows = []
        for count in given.rows:  # each with a process and a Ray of its own
            command = [sys.executable, "-m", "benchmarks.driver_share", "--steps", str(given.steps), "--measure"]
            of_size = [str(many_rows(folder, count)), storage.place]
            done = subprocess.run([*command, *of_size], stdout=subprocess.PIPE, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    written = table([("Parquet files", *local), ("a manifest", *stored)], rows)
    print(written)
    if not given.no_report:
        write_between(REPORT, BEGIN, written)


if __name__ == "__main__":
    main()
