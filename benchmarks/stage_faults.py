"""What the death of a host costs each stage that works on nodes, and whether it makes the same.

`make stage-faults`, as root: a row for each stage, into docs/cluster.md. Three hosts of this machine (the driver's
without a CPU for Ray, two with one each) have a network between them and share an object store alone. Each stage runs
once undisturbed, and once with `kill -9` of all that runs on one host, in the middle of the time for which one has
something to do: its network goes with it, as in a power cut.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.local_checkout import copy_checkout, edit_params
from benchmarks.local_cluster import LocalCluster
from benchmarks.local_network import Delayed, LocalNetwork
from benchmarks.local_store import LocalStore
from benchmarks.marks import write_between

REPORT, BEGIN = Path("docs/cluster.md"), "<!-- stage faults -->\n"
MEGABITS, DELAY, PORT = 100, 0.002, 9000
TIMEOUT = 900  # seconds for a stage
LOSSES = "plots/loss.csv"


Started = TypeVar("Started")


@dataclass(frozen=True)
class Stage:
    """How a stage runs."""

    name: str
    arguments: tuple[str, ...]  # of python -m
    task: str = ""  # in the titles of the processes that do its work on nodes; none: it works on the driver alone
    made: tuple[str, ...] = ()  # what has to be the same; none: what it prints, but for how fast it is


STAGES = (
    Stage("prepare", ("pipelines.prepare",), "ray::cut_heap", ("data/clean/manifest.jsonl", "metrics/prepare.json")),
    Stage("synthesize denoise", ("pipelines.synthesize", "--task", "denoise")),
    Stage(
        "synthesize",
        ("pipelines.synthesize", "--task", "derain"),
        "ray::_call",
        ("data/shards/derain/manifest.jsonl",),
    ),
    Stage(
        "understand",
        ("pipelines.understand",),
        "ray::_call",
        ("models/understanding/estimator.safetensors", "metrics/understand.json"),
    ),
    Stage("analyze", ("pipelines.analyze",), "ray::_call", ("metrics/modulation.json", "plots/sensitivity.csv")),
    Stage("train", ("pipelines.train",), "RayTrainWorker", (LOSSES,)),
    Stage("compress", ("pipelines.compress",)),
    Stage("evaluate", ("pipelines.evaluate",), "ray::_call", ("metrics/evaluate.json",)),
    Stage("register", ("pipelines.register",)),
    Stage("the gate", ("pipelines.promote", "--dry-run"), "ray::_call"),
)


@dataclass(frozen=True)
class Ran:
    """What came of a stage."""

    seconds: float
    middle: float  # of the moments at which a host worked, seconds from the start
    made: dict[str, str]


def small(tree: dict) -> None:
    """Params with which a host works for some seconds in each stage."""
    for name in ("deblur", "dehaze", "desnow"):
        del tree["tasks"][name]
    tree["prepare"].update(sources=[{"builtin": {"scales": [0.6]}}, {"dead_leaves": {"images": 16, "size": 512}}])
    tree["synthesize"].update(variants=2, tiles_per_shard=16)
    tree["understand"].update(sentence_steps=50, tiles=3200, tile_steps=50, clean_tiles=200)
    tree["analyze"].update(common_steps=40, bias_steps=30, tiles=2)
    tree["train"].update(steps=100, log_every=5, validate_every=100, checkpoint_every=20)
    tree["evaluate"].update(tiles=32, real_pairs=[])


@contextmanager
def hosts(folder: Path, checkout: Path) -> Iterator[LocalCluster]:
    """Three of them; the params of the checkout name them, and this process's environment the object store."""
    with ExitStack() as stack:
        network, store = stack.enter_context(LocalNetwork(MEGABITS)), LocalStore()
        stack.callback(store.leave)
        os.environ.update(store.environment("127.0.0.1", store.port))
        store.make_bucket()
        stack.enter_context(Delayed((network.address, PORT), ("127.0.0.1", store.port), DELAY))
        os.environ.update(store.environment(network.address, PORT))

        def head() -> LocalCluster:
            return LocalCluster(Path(tempfile.mkdtemp(dir=folder)), 0, hidden=folder, network=network)

        cluster = stack.enter_context(again(head))
        for _ in range(2):
            again(lambda: cluster.add(1))
        settings = {"address": cluster.address, "storage": f"{store.uri}/ipt", "workers": [1, 2], "cpus_per_worker": 1}
        edit_params(checkout, lambda tree: tree["ray"].update(settings))
        yield cluster


def again(start: Callable[[], Started], times: int = 3) -> Started:
    """Start a node, and again where it does not: Ray gives a process of its own 15 s, too few where much else runs."""
    for _ in range(times - 1):
        with suppress(RuntimeError):
            return start()
    return start()


def run(cluster: LocalCluster, checkout: Path, stage: Stage, kill_after: float | None = None) -> Ran:
    """Run a stage; with `kill_after`, a host that works dies at the first moment after so many seconds.

    RuntimeError where the stage fails, hangs or had no host at work.
    """
    log, started, work = checkout.parent / "stage.log", time.monotonic(), []
    with log.open("w") as file:
        process = subprocess.Popen(
            cluster.on_head(checkout, sys.executable, "-m", *stage.arguments),
            env=cluster.environment | {"PYTHONPATH": str(checkout)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None and time.monotonic() < started + TIMEOUT:
            seconds = time.monotonic() - started
            nodes = range(1, len(cluster.nodes)) if stage.task else ()
            busy = [node for node in nodes if cluster.processes(node, stage.task)]
            work += [seconds] * bool(busy)
            if busy and kill_after is not None and seconds > kill_after:
                cluster.kill(busy[-1])
                kill_after = None
            time.sleep(0.05)
    told, refused = log.read_text(), stage.name == "the gate" and process.poll() == 1
    if (process.poll() != 0 and not refused) or bool(stage.task) != bool(work) or kill_after is not None:
        process.kill()
        raise RuntimeError(f"{stage.name}: exit status {process.poll()}, at work: {work[:1]}; it said:\n{told}")
    return Ran(time.monotonic() - started, sum(work) / max(len(work), 1), _made(checkout, stage, told))


def _made(checkout: Path, stage: Stage, told: str) -> dict[str, str]:
    if not stage.made:
        return {"table": "".join(line for line in told.splitlines(True) if "|" in line and "second" not in line)}
    return {name: (checkout / name).read_bytes().hex() for name in stage.made}


def compared(before: dict[str, str], after: dict[str, str]) -> str:
    """How what was made differs, in words."""
    if before == after:
        return "the same"
    if LOSSES not in before:
        return "ANOTHER"
    first, second = ([float(row["loss"]) for row in _rows(each[LOSSES])] for each in (before, after))
    if len(first) != len(second):
        return "ANOTHER"
    apart = max(abs(one - other) for one, other in zip(first, second, strict=True))
    return f"losses within {apart:.4f}" if apart else "the same losses"


def _rows(content: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(bytes.fromhex(content).decode()))


def replace_dead(cluster: LocalCluster, checkout: Path) -> None:
    """Start a host for the one that died, and wait until Ray knows of both."""
    again(lambda: cluster.add(1))
    count = "import ray; ray.init(log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        done = subprocess.run(
            cluster.on_head(checkout, sys.executable, "-c", count),
            env=cluster.environment | {"RAY_ADDRESS": cluster.address},
            capture_output=True,
            text=True,
            check=True,
        )
        if done.stdout.split()[-1] == "3":
            return
        time.sleep(3)
    raise RuntimeError("Ray does not notice that a host has died")


def measure(folder: Path, names: list[str] | None = None) -> str:
    """The table as Markdown, of all stages or those named; the others run once, as what follows needs them."""
    checkout = folder / "checkout"
    copy_checkout(Path.cwd(), checkout)
    edit_params(checkout, small)
    rows = []
    with hosts(folder, checkout) as cluster:
        for stage in STAGES:
            first = run(cluster, checkout, stage)
            if not stage.task or (names and stage.name not in names):
                continue
            second = run(cluster, checkout, stage, kill_after=first.middle)
            rows.append((stage.name, first.seconds, second.seconds - first.seconds, compared(first.made, second.made)))
            print(json.dumps(rows[-1]), flush=True)
            replace_dead(cluster, checkout)
    lines = [f"| {name} | {seconds:.0f} | {longer:.0f} | {same} |" for name, seconds, longer, same in rows]
    return "\n".join(("| stage | s without | s longer | what it made |", "|---|---|---|---|", *lines)) + "\n"


def main() -> None:
    """Run the stages and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=[each.name for each in STAGES if each.task], default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        written = measure(Path(folder), given.stages)
    print(written)
    if not given.stages:
        write_between(REPORT, BEGIN, written)


if __name__ == "__main__":
    main()
