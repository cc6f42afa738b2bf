"""Seconds that `prepare` takes on this machine's processes, on its own Ray, and on one and two Ray nodes of one core.

`make bench-prepare`: cut-outs of the bundled photographs as JPEG files, cut into tiles. With Ray the tiles go to a
folder as a shared storage, with processes into one file. Each way in a process of its own, `--turns` times; the first
turn holds the start of the processes that work. What Ray needs to start is told beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.local_cluster import LocalCluster
from pipelines.cluster.connection import connected
from pipelines.cluster.storage import Patience, Storage, say
from pipelines.common.params import Builtin, Folder, Source, load_params
from pipelines.common.processes import usable_cores
from pipelines.pictures.sources import list_pictures, read_picture
from pipelines.prepare import prepare, prepare_on_nodes

SIZE = (1200, 900)  # pixels


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


def measure(way: str, folder: Path, turns: int) -> dict:
    """Seconds of each turn of one way, of its start, and the tiles."""
    source = Source(Folder(str(folder / "photos"), (1.0, 0.5)), None, None)
    settings = replace(load_params().prepare, sources=(source,))
    seconds, began = [], time.perf_counter()

    def time_it(function, *arguments) -> dict:
        start = time.perf_counter()
        report = function(settings, 0, folder / f"clean-{way}", *arguments)
        seconds.append(time.perf_counter() - start)
        return report

    if way == "processes":
        reports = [time_it(prepare) for _ in range(turns)]
        return {"seconds": seconds, "start": 0.0, "tiles": reports[0]["tiles"]}
    storage = Storage(str(folder / "shared"))
    with connected():
        start = time.perf_counter() - began
        reports = [time_it(prepare_on_nodes, storage, Patience(storage.place, 0, say)) for _ in range(turns)]
    return {"seconds": seconds, "start": start, "tiles": reports[0]["tiles"]}


def in_its_own_process(way: str, folder: Path, turns: int, **environment: str) -> dict:
    """What `measure` returns there."""
    command = [sys.executable, "-m", "benchmarks.preparing", "--way", way, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--turns", str(turns)], env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def on_nodes_of_one_core(count: int, folder: Path, turns: int) -> dict:
    """The driver's node has no CPU for work."""
    with LocalCluster(folder / f"nodes-{count}", 0) as cluster:
        for _ in range(count):
            cluster.add(1)
        told = {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
        return in_its_own_process(f"nodes-{count}", folder, turns, **told)


def main() -> None:
    """Measure all ways and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given.folder, given.turns)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        make_photographs(folder / "photos", given.pictures)
        ways = {
            f"processes on {usable_cores()} cores": lambda: in_its_own_process("processes", folder, given.turns),
            f"Ray on {usable_cores()} cores": lambda: in_its_own_process("ray", folder, given.turns),
            "one node of one core": lambda: on_nodes_of_one_core(1, folder, given.turns),
            "two nodes of one core": lambda: on_nodes_of_one_core(2, folder, given.turns),
        }
        for told, way in ways.items():
            found = way()
            turns = ", ".join(f"{each:.1f}" for each in found["seconds"])
            median = statistics.median(found["seconds"])
            print(f"{told}: {median:.1f} s ({turns}), start {found['start']:.1f} s, {found['tiles']} tiles", flush=True)


if __name__ == "__main__":
    main()
