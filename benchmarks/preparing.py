"""Seconds that `prepare` and `synthesize` take on processes, on this machine's Ray, and on one and two Ray nodes.

`make bench-prepare`, into docs/cluster.md: cut-outs of the bundled photographs as JPEG files, cut into tiles, and rain
on these. With Ray what is made goes to a folder as a shared storage, with processes into one (tiles: one file). Each
way in a process of its own, `--turns` times; the first turn holds the start of the processes that work. What Ray needs
to start is told beside it.

The nodes have half a core each, where the kernel lets us say so (cgroup v1, root): on a machine of two cores nothing
would be left for the driver beside two whole ones.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.local_cluster import LocalCluster
from benchmarks.marks import write_between
from pipelines.cluster.connection import connected
from pipelines.cluster.naming import published
from pipelines.cluster.storage import Patience, Storage, say
from pipelines.common.params import Builtin, Folder, Prepare, Source, load_params
from pipelines.common.processes import ordered_map, processes, usable_cores
from pipelines.data.tiles import open_tiles
from pipelines.pictures.sources import list_pictures, read_picture
from pipelines.prepare import prepare, prepare_on_nodes
from pipelines.synthesize import make_shard, shard_jobs, synthesize

REPORT, BEGIN = Path("docs/cluster.md"), "<!-- made by `make bench-prepare` -->\n"
SIZE = (1200, 900)  # pixels
OBJECT_STORE = 2_000_000_000  # bytes of a node; with less than the tiles take, their way over the disk is measured
CGROUP, PERIOD = Path("/sys/fs/cgroup/cpu"), 100_000  # microseconds
SHARE = 0.5  # of a core that a node gets
TASK = "derain"


def make_photographs(folder: Path, count: int) -> None:
    """Different cut-outs of the bundled photographs, enlarged, as JPEG files."""
    rng = np.random.default_rng(0)
    pictures = [read_picture(each) for each in list_pictures(Source(None, Builtin((1.0,)), None), 0)]
    for number in range(count):
        image = Image.fromarray(np.rint(pictures[number % len(pictures)] * 255).astype(np.uint8))
        width, height = (int(side * rng.uniform(0.4, 0.8)) for side in image.size)
        left, top = (int(rng.integers(all_ - own)) for all_, own in zip(image.size, (width, height), strict=True))
        cut = image.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
        cut.save(folder / f"{number:04d}.jpg", quality=92)


def timed(function: Callable[[], object], turns: int) -> list[float]:
    """Seconds of each turn."""
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def on_processes(folder: Path, turns: int) -> dict:
    """Both stages on this machine's cores without Ray."""
    settings, clean = prepare_settings(folder), folder / "clean-processes"
    seconds = timed(lambda: prepare(settings, 0, clean), turns)
    params = load_params()
    tiles = {split: open_tiles(clean / f"{split}.parquet") for split in ("train", "val")}
    make = functools.partial(
        make_shard, tiles=tiles, name=TASK, task=params.tasks[TASK], settings=params.synthesize, seed=0
    )
    jobs = list(shard_jobs(tiles, params.synthesize))

    def write() -> None:
        with processes(len(jobs), 1) as pool:
            for shard in ordered_map(pool, make, jobs):
                target = folder / "shards-processes" / shard["name"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(shard["content"])

    rows = sum(int(of_split.rows.sum()) for of_split in tiles.values())
    return {"start": 0.0, "tiles": rows, "prepare": seconds, "synthesize": timed(write, turns)}


def on_ray(folder: Path, turns: int) -> dict:
    """Both stages on the Ray that this process finds, or starts."""
    began, params, own = time.perf_counter(), load_params(), Path(tempfile.mkdtemp(dir=folder))
    storage, settings = Storage(str(own / "shared")), prepare_settings(folder)
    patience = Patience(storage.place, 0, say)
    with connected():
        start = time.perf_counter() - began
        seconds = timed(lambda: prepare_on_nodes(settings, 0, own / "clean", storage, patience), turns)
        place = published(storage, own / "clean")
        tiles = {split: open_tiles(own / f"clean/{split}.parquet", place) for split in ("train", "val")}
        shards = timed(
            lambda: synthesize(TASK, params.tasks[TASK], params, tiles, own / "shards" / TASK, storage), turns
        )
    rows = sum(int(of_split.rows.sum()) for of_split in tiles.values())
    return {"start": start, "tiles": rows, "prepare": seconds, "synthesize": shards}


def prepare_settings(folder: Path) -> Prepare:
    """Those of params, of the photographs made here."""
    source = Source(Folder(str(folder / "photos"), (1.0, 0.5)), None, None)
    return replace(load_params().prepare, sources=(source,))


def in_its_own_process(way: str, folder: Path, turns: int, **environment: str) -> dict:
    """What `on_processes` or `on_ray` returns there."""
    command = [sys.executable, "-m", "benchmarks.preparing", "--way", way, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--turns", str(turns)], env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def on_nodes(count: int, folder: Path, turns: int, share: float | None) -> dict:
    """On so many nodes that run one task at a time each; the driver's own node runs none."""
    with LocalCluster(folder / f"nodes-{count}", 0, object_store=OBJECT_STORE) as cluster:
        for _ in range(count):
            cluster.add(1)
        told = {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
        with part_of_a_core(cluster, share):
            return in_its_own_process("ray", folder, turns, **told)


@contextmanager
def part_of_a_core(cluster: LocalCluster, share: float | None) -> Iterator[None]:
    """Each node but the head, with all that it has started and starts, gets no more than `share` of a core."""
    nodes = range(1, len(cluster.nodes)) if share else ()
    groups = [CGROUP / f"instruct-ipt-{os.getpid()}-{number}" for number in nodes]
    try:
        for group, number in zip(groups, nodes, strict=True):
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD)))
            for process in (cluster.nodes[number], *cluster.processes(number)):
                (group / "cgroup.procs").write_text(str(process.pid))
        yield
    finally:
        for group in groups:
            for process in (group / "cgroup.procs").read_text().split() if group.is_dir() else ():
                with suppress(OSError):  # ended meanwhile
                    (CGROUP / "cgroup.procs").write_text(process)
            group.rmdir()


def can_limit() -> bool:
    """Whether this process may give others a part of a core."""
    return (CGROUP / "cpu.cfs_quota_us").is_file() and os.access(CGROUP, os.W_OK)


def table(found: dict[str, dict]) -> str:
    """Markdown: a line for each way."""
    lines = [
        "| | tiles | prepare, s | synthesize, s | start of Ray, s |",
        "|---|---|---|---|---|",
    ]
    for way, of_way in found.items():
        told = " | ".join(
            f"{statistics.median(of_way[stage]):.1f} ({min(of_way[stage]):.1f} to {max(of_way[stage]):.1f})"
            for stage in ("prepare", "synthesize")
        )
        lines.append(f"| {way} | {of_way['tiles']:,} | {told} | {of_way['start']:.1f} |")
    processes, whole, one, two = found.values()
    for told, above, below in (("Ray over processes", whole, processes), ("one node over two", one, two)):
        ratios = " | ".join(
            f"{statistics.median(above[stage]) / statistics.median(below[stage]):.2f}"
            for stage in ("prepare", "synthesize")
        )
        lines.append(f"| {told} | | {ratios} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all ways, print the table and write it into docs/cluster.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--no-report", action="store_true", help="print alone")
    parser.add_argument("--way", choices=["processes", "ray"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        measure = {"processes": on_processes, "ray": on_ray}[given.way]
        print(json.dumps(measure(given.folder, given.turns)))
        return
    share = SHARE if can_limit() else None
    of_a_node = f"{share} of a core" if share else "a core"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        make_photographs(folder / "photos", given.pictures)
        cores = usable_cores()
        found = {
            f"processes on {cores} cores": in_its_own_process("processes", folder, given.turns),
            f"Ray on {cores} cores": in_its_own_process("ray", folder, given.turns),
            f"one node of {of_a_node}": on_nodes(1, folder, given.turns, share),
            f"two nodes of {of_a_node} each": on_nodes(2, folder, given.turns, share),
        }
    written = table(found)
    print(written)
    if not given.no_report:
        write_between(REPORT, BEGIN, written)


if __name__ == "__main__":
    main()
