"""Training batches from Ray Data beside a torch DataLoader that does the same work, and memory by size of the data.

`make bench-ingest`: both read the same groups of the default shards, decode, crop, turn and stack them, for a consumer
that does nothing else, in turns. Ray Data hands encoded images to the consumer's decode threads; the DataLoader decodes
in as many processes as Ray has threads and reader together. Start-up is told apart. For memory, the shards are linked
under new names until there are 1, 10, 50 and 163 times as many (of the default shards, 163 times are a million rows).
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

from ipt.training.fit import Batch
from pipelines.cluster.connection import connected
from pipelines.common.params import Ingest, load_params
from pipelines.common.paths import SHARDS
from pipelines.training.batches import training_batches
from pipelines.training.groups import Mix, open_mix, read_groups
from pipelines.training.stream import Schedule, worker_items

WARM = 40  # steps before the clock starts: the pipeline fills up


def ray_batches(config: dict) -> Iterator[Batch]:
    """What a training worker of ours consumes."""
    steps, groups = config["steps"], config["groups_per_step"]
    schedule = Schedule(steps, groups, interval=10**6, segment=config["groups_per_read"], workers=1)
    tables = worker_items(functools.partial(read_groups, config["mix"]), schedule, 0, 0)
    return batches_of(tables, config, threads=config["threads"])


def batches_of(tables: Iterator, config: dict, threads: int) -> Iterator[Batch]:
    """Decoded, cropped and turned: the same work on both sides."""
    settings = Ingest(config["crop"], left_alone=0.0, decode_threads=threads, prefetch_steps=4)
    return training_batches(tables, config["mix"].index, settings, seed=0)


class Loaded(torch.utils.data.IterableDataset):
    """The same batches for a DataLoader: its processes take segments in turn."""

    def __init__(self, config: dict) -> None:
        self.config = config

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        groups, per_read, mix = (self.config[name] for name in ("groups_per_step", "groups_per_read", "mix"))
        last = self.config["steps"] * groups

        def tables():
            for start in range(worker.id * per_read, last, per_read * worker.num_workers):
                segment = read_groups(mix, start, min(start + per_read, last))
                for first in range(0, len(segment), groups):
                    yield segment.slice(first, groups)

        return batches_of(tables(), self.config, threads=1)


def consume(batches: Iterator[Batch], started: float) -> dict[str, float]:
    """Seconds to the first batch, and samples per second after the first WARM ones."""
    first, samples, begun = 0.0, 0, 0.0
    for number, batch in enumerate(batches):
        if number == 0:
            first = time.perf_counter() - started
        if number == WARM:
            begun = time.perf_counter()
        samples += len(batch.index) if number > WARM else 0
    return {"first": first, "rate": samples / (time.perf_counter() - begun)}


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
        with_ray(config | {"mix": many}, str(Path(folder).resolve()))
    rows = sum(int(groups.rows.sum()) for groups in many.row_groups)
    return (
        f"{rows:9,} rows: driver {peak.driver:.0f} MiB, largest other process {peak.worker:.0f} MiB, object store "
        f"{peak.store:.0f} MiB; opened in {opened:.1f} s"
    )


def compare(config: dict, turns: int, processes: int) -> None:
    """Print the speed of both, in turns."""
    results: dict[str, list] = {"Ray Data": [], "DataLoader": []}
    with tempfile.TemporaryDirectory(dir=".") as storage, connected():
        storage = str(Path(storage).resolve())
        for _ in range(turns):
            results["Ray Data"].append(with_ray(config, storage))
            results["DataLoader"].append(with_loader(config, processes))
        for name, measured in results.items():
            rates, first = [each["rate"] for each in measured], [each["first"] for each in measured]
            print(
                f"{name:12} {statistics.median(rates):6.0f} samples/s ({min(rates):.0f} to {max(rates):.0f}), first "
                f"batch after {statistics.median(first):.1f} s"
            )
        both = zip(results["Ray Data"], results["DataLoader"], strict=True)
        ratios = [ours["rate"] / theirs["rate"] for ours, theirs in both]
        print(f"ratio        {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=640)
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
        "threads": params.ingest.decode_threads,
    }
    if given.memory:
        print(memory(config, given.memory), flush=True)
        return
    compare(config, given.turns, given.processes)
    for times in given.sizes:  # each with a process and a Ray of its own
        subprocess.run([sys.executable, "-m", "benchmarks.ingest", "--memory", str(times)], check=True)


if __name__ == "__main__":
    main()
