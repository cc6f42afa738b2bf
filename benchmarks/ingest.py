"""Training batches from Ray Data beside a torch DataLoader and beside PNG shards, and memory by size of the data.

`make bench-ingest`: in turns, for a consumer that does nothing else,

- Ray Data: groups of the default shards, read and cut where Ray runs it, sorted into batches, as `train` has them;
- DataLoader: the same groups, read and cut in as many processes as Ray has reader and consumer together;
- PNG: the same tiles in Parquet as PNG files, as version 1 of the shards held them, decoded and cut one by one, through
  the same Ray Data.

Start-up is told apart and is in the total. For memory, the shards are linked under new names until there are 1, 10, 50
and 163 times as many (of the default shards, 163 times are a million rows).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import ray.train
import torch
from ray.train.torch import TorchTrainer

from benchmarks.png_shards import png_shards, read_png_groups
from ipt.training.batch import Batch
from pipelines.cluster.connection import connected
from pipelines.common.params import load_params
from pipelines.common.paths import SHARDS
from pipelines.training.batches import Groups, training_batches
from pipelines.training.groups import Mix, open_mix, read_groups
from pipelines.training.stream import Schedule, worker_items

WARM = 40  # steps before the clock starts: the pipeline fills up


def ray_batches(config: dict) -> Iterator[Batch]:
    """What a training worker of ours consumes."""
    steps, groups = config["steps"], config["groups_per_step"]
    schedule = Schedule(steps, groups, interval=10**6, segment=config["groups_per_read"], workers=1)
    return training_batches(worker_items(config["read"], schedule, 0, 0), config["mix"].index)


class Loaded(torch.utils.data.IterableDataset):
    """The same batches for a DataLoader: its processes take segments in turn."""

    def __init__(self, config: dict) -> None:
        self.config = config

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        groups, per_read = (self.config[name] for name in ("groups_per_step", "groups_per_read"))
        last = self.config["steps"] * groups

        def steps() -> Iterator[Groups]:
            for start in range(worker.id * per_read, last, per_read * worker.num_workers):
                segment = self.config["read"](start, min(start + per_read, last))
                for first in range(0, len(segment["clean"]), groups):
                    yield {name: values[first : first + groups] for name, values in segment.items()}

        return training_batches(steps(), self.config["mix"].index)


def consume(batches: Iterator[Batch], started: float) -> dict[str, float]:
    """Seconds to the first batch, samples per second after the first WARM ones, and of all with what came before."""
    first, samples, every, begun = 0.0, 0, 0, 0.0
    for number, batch in enumerate(batches):
        if number == 0:
            first = time.perf_counter() - started
        if number == WARM:
            begun = time.perf_counter()
        samples += len(batch.index) if number > WARM else 0
        every += len(batch.index)
    ended = time.perf_counter()
    return {"first": first, "rate": samples / (ended - begun), "total": every / (ended - started)}


def ray_worker(config: dict) -> None:
    """In a Ray Train worker: measure, and write what came out."""
    torch.set_num_threads(1)
    measured = consume(ray_batches(config), time.perf_counter())
    Path(config["out"]).write_text(json.dumps(measured))


def with_ray(config: dict, storage: str) -> dict[str, float]:
    """A pass through Ray Train and Ray Data."""
    out = Path(storage) / "measured.json"
    TorchTrainer(
        ray_worker,
        train_loop_config=config | {"out": str(out)},
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(storage_path=storage, name=f"ingest-{time.time_ns()}"),
    ).fit()
    return json.loads(out.read_text())


def with_loader(config: dict, processes: int) -> dict[str, float]:
    """A pass through a DataLoader."""
    started = time.perf_counter()
    loader = torch.utils.data.DataLoader(
        Loaded(config), batch_size=None, num_workers=processes, prefetch_factor=4, multiprocessing_context="spawn"
    )
    return consume(iter(loader), started)


def linked(mix: Mix, times: int, folder: Path) -> Path:
    """The shards of all tasks, each file under `times` names."""
    for path in sorted({path for groups in mix.row_groups for path in groups.paths}):
        target = folder / Path(path).relative_to(SHARDS.resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        for number in range(times):
            os.link(path, target.with_stem(f"{target.stem}-{number:05d}"))
    return folder


class Peak:
    """The most memory while it watches, in MiB: of this process, of the largest of Ray's, and in the object store.

    What processes share (the object store, libraries) does not count for them. The store is what /dev/shm holds more
    than before: Ray, which has to start while this watches, keeps there what objects have once touched.
    """

    def __enter__(self) -> Peak:
        self.driver, self.worker, self.store, self._ended = 0.0, 0.0, 0.0, threading.Event()
        self._before = psutil.disk_usage("/dev/shm").used
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(0.2):
            self.store = max(self.store, (psutil.disk_usage("/dev/shm").used - self._before) / 2**20)
            self.driver = max(self.driver, private(own))
            for process in own.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "ray::" in " ".join(process.cmdline()[:1]):
                        self.worker = max(self.worker, private(process))


def private(process: psutil.Process) -> float:
    """MiB that a process holds for itself."""
    memory = process.memory_info()
    return (memory.rss - memory.shared) / 2**20


def memory(config: dict, times: int) -> str:
    """What a pass over the shards under `times` names takes, in a process that has not started Ray before."""
    params = load_params()
    mix = open_mix(SHARDS, params.tasks, "train", params.seed)
    with tempfile.TemporaryDirectory(dir=SHARDS.parent) as folder, Peak() as peak, connected():
        started = time.perf_counter()
        many = open_mix(linked(mix, times, Path(folder) / "linked"), params.tasks, "train", params.seed)
        opened = time.perf_counter() - started
        read = functools.partial(read_groups, many, params.ingest)
        with_ray(config | {"mix": many, "read": read}, str(Path(folder).resolve()))
    rows = sum(int(groups.rows.sum()) for groups in many.row_groups)
    return (
        f"{rows:9,} rows: driver {peak.driver:.0f} MiB, largest other process {peak.worker:.0f} MiB, object store "
        f"{peak.store:.0f} MiB; opened in {opened:.1f} s"
    )


def compare(config: dict, turns: int, processes: int) -> None:
    """Print the speed of all, in turns, and ratios of those that came one after another."""
    results: dict[str, list] = {"Ray Data": [], "DataLoader": [], "PNG": []}
    Path("build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="build") as folder, connected():
        storage = str(Path(folder).resolve())
        coded = png_shards(config["mix"], SHARDS, Path(storage) / "png")
        as_png = config | {"read": functools.partial(read_png_groups, coded, config["crop"])}
        for _ in range(turns):
            results["Ray Data"].append(with_ray(config, storage))
            results["DataLoader"].append(with_loader(config, processes))
            results["PNG"].append(with_ray(as_png, storage))
    for name, measured in results.items():
        told = {key: spread([each[key] for each in measured]) for key in ("rate", "total", "first")}
        print(f"{name:12} {told['rate']} samples/s, {told['total']} with start-up; first batch after {told['first']} s")
    for other in ("DataLoader", "PNG"):
        both = list(zip(results["Ray Data"], results[other], strict=True))
        told = {key: spread([ours[key] / theirs[key] for ours, theirs in both], 2) for key in ("rate", "total")}
        print(f"tensors / {other}: {told['rate']}, {told['total']} with start-up")


def spread(values: list[float], digits: int | None = None) -> str:
    """Median, least and most."""
    digits = (0 if values[0] >= 100 else 1) if digits is None else digits
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1600)  # fewer would be what Ray read ahead while it started
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 10, 50, 163])
    parser.add_argument("--memory", type=int, help="measure the memory of this size alone")
    given = parser.parse_args()
    params = load_params()
    mix = open_mix(SHARDS, params.tasks, "train", params.seed)
    config = {
        "mix": mix,
        "steps": given.steps,
        "groups_per_step": params.train.groups_per_step,
        "groups_per_read": params.ray.groups_per_read,
        "crop": params.ingest.crop,
        "read": functools.partial(read_groups, mix, params.ingest),
    }
    if given.memory:
        print(memory(config, given.memory), flush=True)
        return
    compare(config, given.turns, given.processes)
    for times in given.sizes:  # each with a process and a Ray of its own
        subprocess.run([sys.executable, "-m", "benchmarks.ingest", "--memory", str(times)], check=True)


if __name__ == "__main__":
    main()
