"""What a fault costs a training on a cluster: workers, nodes, the driver or the storage fail while it runs.

`make faults`: the default training, shortened, on three Ray nodes of this machine that share nothing but the storage;
a row for each fault, into docs/cluster.md. It needs the shards (`make repro`), some 30 minutes, and for a storage that
fails the right to mount (root).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from benchmarks.local_checkout import edit_params
from benchmarks.local_cluster import LocalCluster
from benchmarks.marks import write_between
from benchmarks.watched_training import Training
from pipelines.cluster.checkpoints import latest_checkpoint
from pipelines.cluster.storage import Storage

REPORT = Path("docs/cluster.md")
BEGIN = "<!-- faults -->\n"
AWAY = 40  # seconds that a storage or a worker is away
WRITING = 0.006  # seconds that a checkpoint takes to be written, about
CHECKPOINTS = 200  # MiB of the storage beside the shards


@dataclass
class Scene:
    """A checkout, the storage, and how to start a cluster for them."""

    checkout: Path
    storage: Path
    nodes: Path
    hide: bool
    trainings: list[Training] = field(default_factory=list)

    @contextmanager
    def cluster(self):
        """The driver's node, without room for a worker, and two others with room for one each."""
        own = Path(tempfile.mkdtemp(dir=self.nodes))
        with LocalCluster(own, 0, self.checkout if self.hide else None) as cluster:
            cluster.add(1)
            cluster.add(1)
            yield cluster

    def train(self, cluster: LocalCluster) -> Training:
        self.trainings.append(Training(self.checkout, cluster))
        return self.trainings[-1]

    def checkpoints(self) -> set[Path]:
        return set(self.storage.glob("train-*/checkpoint_*"))

    def last_is_whole(self) -> bool:
        """Whether the newest checkpoint is the one that the run would go on from."""
        newest = max(self.checkpoints(), key=lambda path: path.name)
        latest = latest_checkpoint(Storage(str(self.storage)), newest.parent.name)
        return latest is not None and latest.folder == f"{newest.parent.name}/{newest.name}"


def undisturbed(scene: Scene, at: int) -> None:
    """nothing"""
    with scene.cluster() as cluster:
        scene.train(cluster).end()


def worker_killed(scene: Scene, at: int) -> None:
    """kill -9 of a worker"""
    with scene.cluster() as cluster:
        training = scene.train(cluster)
        training.wait_for(lambda: training.step >= at)
        cluster.trainers()[-1].kill()
        training.end()


def node_killed(scene: Scene, at: int) -> None:
    """kill -9 of a node: raylet and worker"""
    with scene.cluster() as cluster:
        training = scene.train(cluster)
        training.wait_for(lambda: training.step >= at)
        cluster.kill(2)
        training.end()


def driver_killed(scene: Scene, at: int) -> None:
    """kill -9 of the driver, run again"""
    with scene.cluster() as cluster:
        training = scene.train(cluster)
        training.wait_for(lambda: training.step >= at)
        training.kill()
        scene.train(cluster).end()


def all_killed_as_written(scene: Scene, at: int, times: int = 10) -> int:
    """kill -9 of workers, driver and nodes as a checkpoint appears, ten times"""
    moments, half_written = random.Random(0), 0
    for _ in range(times):
        with scene.cluster() as cluster:
            training, before = scene.train(cluster), scene.checkpoints()
            training.wait_for(lambda cluster=cluster: len(cluster.trainers()) == 2)
            workers = cluster.trainers()  # to look for them takes longer than to write
            training.wait_for(lambda before=before: scene.checkpoints() - before, every=0)
            time.sleep(moments.uniform(0, WRITING))
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
            training.kill()
            half_written += not scene.last_is_whole()
    with scene.cluster() as cluster:
        scene.train(cluster).end()
    return half_written


def worker_stopped(scene: Scene, at: int) -> None:
    """a worker that stands still for 40 s"""
    with scene.cluster() as cluster:
        training = scene.train(cluster)
        training.wait_for(lambda: training.step >= at)
        straggler = cluster.trainers()[-1]
        straggler.send_signal(signal.SIGSTOP)
        time.sleep(AWAY)
        straggler.send_signal(signal.SIGCONT)
        training.end()


def storage_full(scene: Scene, at: int) -> None:
    """storage full for 40 s"""
    with scene.cluster() as cluster:
        training = scene.train(cluster)
        training.wait_for(lambda: training.step >= at)
        filler = scene.storage / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
        training.wait_for(lambda: "trying again" in training.output)
        time.sleep(AWAY)
        filler.unlink()
        training.end()


def storage_read_only(scene: Scene, at: int) -> None:
    """storage read-only for 40 s"""
    with scene.cluster() as cluster:
        training = scene.train(cluster)
        training.wait_for(lambda: training.step >= at)
        subprocess.run(["mount", "-o", "remount,ro", scene.storage], check=True)
        training.wait_for(lambda: "trying again" in training.output)
        time.sleep(AWAY)
        subprocess.run(["mount", "-o", "remount,rw", scene.storage], check=True)
        training.end()


FAULTS = (
    undisturbed,
    worker_killed,
    node_killed,
    driver_killed,
    all_killed_as_written,
    worker_stopped,
    storage_full,
    storage_read_only,
)


def result(scene: Scene, fault: Callable[[Scene, int], int | None], at: int) -> dict:
    """Run a training with a fault: what it ended with, and what the fault cost."""
    scene.trainings.clear()
    started = time.monotonic()
    half_written = fault(scene, at)
    seconds = time.monotonic() - started
    summary = json.loads((scene.checkout / "metrics/train.json").read_text())
    repeated = 0
    for before, after in zip(scene.trainings, scene.trainings[1:], strict=False):
        repeated += max(before.step - continued(after), 0)  # a checkpoint may be ahead of what was told
    for training in scene.trainings:
        repeated += in_place(training.lines)
    scores = summary["val_psnr"].values()
    losses = pd.read_csv(scene.checkout / "plots/loss.csv")["loss"]
    return {
        "fault": fault.__doc__,
        "seconds": seconds,
        "repeated": repeated,
        "half_written": half_written,
        "psnr": sum(scores) / len(scores),
        "losses": losses.tolist(),
        "told": [line for training in scene.trainings for line in training.lines if "step" not in line.split(",")[0]],
    } | {name: summary[name] for name in ("restarts", "seconds_lost", "goodput")}


def continued(training: Training) -> int:
    """The step that a training went on from."""
    found = re.search(r"continues from step (\d+)", training.output)
    return int(found.group(1)) if found else 0


def in_place(lines: list[str]) -> int:
    """Steps told before a restart inside of a training that came again after it."""
    repeated = reached = 0
    for line in lines:
        if found := re.search(r"continues from step (\d+)", line):
            repeated += max(reached - int(found.group(1)), 0)
        elif found := re.search(r"step (\d+)/", line):
            reached = int(found.group(1))
    return repeated


def make_scene(folder: Path, steps: int, hide: bool) -> Scene:
    """Copy code, params and shards into a checkout of their own, beside a storage (as root, one that can be filled)."""
    checkout, storage = folder / "checkout", folder / "storage"
    for name in ("degradations", "ipt", "pipelines", "data/shards"):
        shutil.copytree(name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "metrics").mkdir()
    shutil.copy("metrics/modulation.json", checkout / "metrics")
    shutil.copy("params.yaml", checkout)

    def shorten(tree: dict) -> None:
        every = {"log_every": max(steps // 60, 1), "validate_every": steps, "checkpoint_every": steps // 6}
        tree["train"].update(steps=steps, validate_tiles=16, **every)
        settings = {"workers": [1, 2], "cpus_per_worker": 1, "storage": str(storage)}
        tree["ray"].update(storage_patience=300, max_failures=3, **settings)

    edit_params(checkout, shorten)
    storage.mkdir()
    if os.geteuid() == 0:
        shards = sum(path.stat().st_size for path in (checkout / "data/shards").rglob("*.parquet"))
        size = f"size={(shards >> 20) + CHECKPOINTS}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", storage], check=True)
    return Scene(checkout, storage, folder / "nodes", hide)


def close(scene: Scene) -> None:
    """Unmount the storage and remove all."""
    subprocess.run(["umount", "-l", scene.storage], check=False, capture_output=True)
    shutil.rmtree(scene.checkout.parent, ignore_errors=True)


def table(rows: list[dict], steps: int) -> str:
    """The rows as Markdown, beside the first one, which had no fault."""
    first = rows[0]
    written = [
        f"{steps} steps, a checkpoint every {steps // 6}; without a fault {first['seconds']:.0f} s with starting three "
        f"nodes, {first['psnr']:.2f} dB.",
        "",
        "| fault | ended | s longer | steps repeated | restarts | goodput | dB | loss curve |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows[1:]:
        apart = max(abs(a - b) for a, b in zip(row["losses"], first["losses"], strict=True))
        same = "the same" if apart == 0 else f"within {apart:.4f}"
        written.append(
            f"| {row['fault']} | yes | {row['seconds'] - first['seconds']:.0f} | {row['repeated']} | {row['restarts']} "
            f"| {row['goodput']:.0%} | {row['psnr'] - first['psnr']:+.2f} | {same} |"
        )
    for row in rows:
        if row["half_written"] is not None:
            written += ["", f"Of the ten kills, {row['half_written']} left a checkpoint half-written."]
    return "\n".join(written) + "\n"


def main() -> None:
    """Run all faults and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--faults", nargs="+", choices=[each.__name__ for each in FAULTS], default=None)
    given = parser.parse_args()
    scene = make_scene(Path(tempfile.mkdtemp(prefix="faults-")), given.steps, hide=True)
    scene.nodes.mkdir()
    rows = []
    try:
        for fault in FAULTS:
            if given.faults and fault.__name__ not in given.faults and fault is not undisturbed:
                continue
            row = result(scene, fault, int(given.steps * 0.45))
            rows.append(row)
            print(json.dumps({name: value for name, value in row.items() if name != "losses"}, indent=1), flush=True)
    finally:
        close(scene)
    written = table(rows, given.steps)
    print(written)
    if not given.faults:
        write_between(REPORT, BEGIN, written)


if __name__ == "__main__":
    main()
