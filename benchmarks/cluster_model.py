"""What 8 and 64 GPUs would train, simulated out of measured numbers, and the simulation beside measured rows.

`make model-cluster` prints the tables and writes them into docs/cluster.md. `benchmarks/cluster_numbers.py` holds what
was measured, `benchmarks/cluster_simulation.py` what is done with it. Nothing is measured here: the same numbers give
the same tables. One core, some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from benchmarks.cluster_numbers import (
    BESIDE,
    CROP,
    GPU,
    GRADIENTS_SMALL,
    GROUP_ROWS,
    HAND_OUT,
    NUMBERS_RELEASE,
    PUT,
    READ_RELEASE,
    ROW_RELEASE,
    START,
    START_READER,
    TASKS,
    TURN_COST,
)
from benchmarks.cluster_parts import Cluster, Outcome
from benchmarks.cluster_rows import rows, shared
from benchmarks.cluster_simulation import Simulation
from benchmarks.marks import write_between
from pipelines.training.stream import EACH, TURN, WINDOW, reader_count

REPORT, BEGIN = Path("docs/cluster.md"), "<!-- model -->\n"

# What nobody here has measured is given: 8 GPUs a node, which exchange 100 GB/s, and what the sweeps change
NODE = {"workers": 8, "inside_rate": 100e9, "cores": 32, "link_rate": 100e9 / 8, "link_latency": 50e-6}
STORAGE = {"storage_rate": 10e9, "storage_latency": 3e-3}
GROUPS = 16  # of a worker in a step: 80 samples


def gpus(nodes: int, mode: str, groups_per_read: int = 128, **more) -> Cluster:
    """Nodes of 8 GPUs that train `small` on a release's tiles, for some windows."""
    seconds = 30 if nodes == 1 else 8 * max(groups_per_read / 256, 1)
    steps, rows = max(groups_per_read // GROUPS, 1), max(groups_per_read, GROUPS)
    groups = math.ceil(rows / GROUP_ROWS)  # of each task, whole ones
    given = {
        "nodes": nodes, "samples": GROUPS * TASKS, "steps": math.ceil(seconds / GPU[mode]), "segment_steps": steps,
        "group_rows": GROUP_ROWS, "segment_groups": groups * TASKS, "row_bytes": ROW_RELEASE, "sample_bytes": 4 * CROP,
        "read": READ_RELEASE * BESIDE * groups * GROUP_ROWS / rows, "rest": TURN, "turn": TURN_COST,
        "hand_out": HAND_OUT, "put": PUT, "start": START, "start_reader": START_READER, "convert": NUMBERS_RELEASE,
        "quantum": 0.02, "warm": 1 / 3,  # when what was read before the first step is used up
    }  # fmt: skip
    cluster = Cluster(**(given | NODE | STORAGE | shared(GPU[mode], GRADIENTS_SMALL) | more))
    readers = reader_count(cluster.ranks, nodes * (cluster.cores - cluster.workers))
    return dataclasses.replace(cluster, window=max(WINDOW, EACH * cluster.ranks), readers=readers)


def checked() -> list[str]:
    """The measured rows as Markdown."""
    lines = ["| measured on two cores | measured | simulated | off |", "|---|---|---|---|"]
    for row in rows():
        simulated = row.simulated(run(row.cluster))
        off = f"{simulated / row.measured - 1:+.1%}" + (" (set by it)" if row.given else "")
        lines.append(f"| {row.name} | {row.measured:,} {row.unit} | {figure(simulated)} | {off} |")
    return lines


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


NEVER = {  # what a cluster has where one thing is never waited for
    "the next window": {"start": 0.0, "start_reader": 0.0},
    "reading": {"read": 0.0, "storage_latency": 0.0},
    "storage": {"storage_rate": math.inf},
    "links": {"link_rate": math.inf, "link_latency": 0.0},
    "the hand-out": {"hand_out": 0.0, "turn": 0.0},
    "bytes to numbers": {"convert": 0.0},
}


def before(cluster: Cluster) -> Cluster:
    """With windows that do not grow with the workers, and a reader for each: the stream until November 2026."""
    return dataclasses.replace(cluster, window=WINDOW, readers=cluster.ranks)


def share(cluster: Cluster, outcome: Outcome) -> float:
    """Of the samples a second that the GPUs make of data in their memory."""
    step = cluster.forward + cluster.backward + cluster.update
    return outcome.rate / (cluster.ranks * cluster.samples / step)


def bound(cluster: Cluster, outcome: Outcome) -> str:
    """What gains most where it is never waited for; the GPUs where nothing gains 3 %."""
    idle = {name for name in ("storage", "links") if outcome.busy[name] < 0.5}
    gains = {
        name: run(dataclasses.replace(cluster, **never)).rate / outcome.rate - 1
        for name, never in NEVER.items()
        if name not in idle
    }
    best = max(gains, key=gains.__getitem__)
    return f"{best}: +{gains[best]:.0%} without" if gains[best] >= 0.03 else "the GPUs"


def run(cluster: Cluster) -> Outcome:
    """What comes of it; always the same."""
    return Simulation(cluster).run()


def predicted() -> list[str]:
    """One node and eight, as Markdown."""
    lines = [
        "| GPUs | `small` | stream | samples/s | of the GPUs' own | waits for data | storage | busiest link | reading "
        "cores | bound by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for nodes in (1, 8):
        for name, change in (("before", before), ("as it is", lambda cluster: cluster)):
            for mode in GPU:
                cluster = change(gpus(nodes, mode))
                outcome = run(cluster)
                lines.append(
                    f"| {cluster.ranks} | {mode} | {name} | {outcome.rate:,.0f} | {share(cluster, outcome):.0%} | "
                    f"{outcome.wait:.0%} | {outcome.rate * ROW_RELEASE / 1e9:.1f} GB/s | {outcome.busy['links']:.0%} | "
                    f"{outcome.rate * cluster.read:.0f} | {bound(cluster, outcome)} |"
                )
    return lines


def sweeps() -> list[tuple[str, dict]]:
    """What changes of 64 GPUs with the stream as it is."""
    return [
        *((f"links of {rate} Gbit/s", {"link_rate": rate * 1e9 / 8}) for rate in (10, 25)),
        *((f"storage of {rate} GB/s", {"storage_rate": rate * 1e9}) for rate in (1, 5, 25)),
        ("storage of 25 GB/s, groups_per_read: 512", {"storage_rate": 25e9, "groups_per_read": 512}),
        ("30 ms for the requests of a row group", {"storage_latency": 0.03}),
        *((f"{cores} cores a node", {"cores": cores}) for cores in (4, 8)),
        *((f"groups_per_read: {groups}", {"groups_per_read": groups}) for groups in (32, 512)),
        ("steps that vary by 5 %", {"jitter": 0.05}),
    ]


def swept() -> list[str]:
    """One change at a time, as Markdown."""
    lines = ["| 64 GPUs | eager | compiled |", "|---|---|---|"]
    for name, change in sweeps():
        cells = []
        for mode in GPU:
            cluster = gpus(8, mode, **change)
            outcome = run(cluster)
            cells.append(f"{outcome.rate:,.0f} ({share(cluster, outcome):.0%})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Simulate, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-report", action="store_true", help="print alone")
    given = parser.parse_args()
    tables = []
    for table in (checked, predicted, swept):
        tables.append("\n".join(table()) + "\n")
        print(tables[-1], flush=True)
    if not given.no_report:
        write_between(REPORT, BEGIN, "\n".join(tables))


if __name__ == "__main__":
    main()
