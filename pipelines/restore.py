"""Large folders on all devices of a machine or a cluster: `ipt restore` through Ray Data.

    python -m pipelines.restore --input DIR --output DIR

What is restored already is skipped, so the same command goes on where one was stopped. Input and output folder have to
be visible under the same path on all nodes; the model travels by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
import torch

from ipt import RELEASED
from ipt.cli import STOPPED
from ipt.model import InstructIPT
from ipt.photos.file_processes import FileProcesses
from ipt.reports import print_left_out, print_reports
from ipt.restoring.budget import MemoryBudget, file_limits
from ipt.restoring.finding import find_photographs
from ipt.restoring.photographs import Report, Request, check_request, restore_file
from pipelines.cluster.connection import connected
from pipelines.common.stage import run


class Restorer:
    """Restores the files of a batch, in a process of its own with a device of its own, as one of `together` on its
    machine, which share the memory."""

    def __init__(self, model: InstructIPT, request: Request, gpu: bool, together: int) -> None:
        if not gpu:
            torch.set_num_threads(1)  # one of these runs on each core
        budget = MemoryBudget.of_what_is_free()
        self.files = FileProcesses(1, file_limits(budget.files(together)))
        self.memory = budget.network(together).each
        self.model = model.to("cuda" if gpu else "cpu")
        self.request = request

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`source` and `target` (paths as bytes) to `report` (JSON of a Report)."""
        columns = [map(Path, map(os.fsdecode, batch[name].to_pylist())) for name in ("source", "target")]
        pairs = zip(*columns, strict=True)
        reports = [
            restore_file(self.model, source, target, self.request, self.files, self.memory) for source, target in pairs
        ]
        return pa.table({"report": [report.to_json() for report in reports]})


def restore_everywhere(model: InstructIPT, files: list[tuple[Path, Path]], request: Request) -> Iterator[Report]:
    """Restore (source, target) files on every GPU of the cluster, or on its CPUs where it has none; as they finish."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = int(ray.cluster_resources().get("CPU", 1))
    # On CPUs a process of one thread for each core does more than fewer with more threads.
    actors = max(min(gpus or cpus, len(files)), 1)
    together = min(actors, _most_on_a_machine("GPU" if gpus else "CPU"))
    # Absolute, but a link keeps its own name; bytes, for a name need not be UTF-8.
    rows = [
        {name: os.fsencode(path.absolute()) for name, path in zip(("source", "target"), pair, strict=True)}
        for pair in files
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Restorer,
        fn_constructor_args=(model.cpu(), request, gpus > 0, together),
        batch_size=1,
        batch_format="pyarrow",
        num_gpus=1 if gpus else 0,
        num_cpus=1,
        concurrency=actors,
    )
    for row in dataset.iter_rows():
        yield Report.from_json(row["report"])


def _most_on_a_machine(resource: str) -> int:
    """How many of a resource the machine of the cluster has that has most."""
    return max(1, *(int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]))


def main() -> None:
    """Read the command line, restore what is missing, and say what became of each file."""
    arguments = _parser().parse_args()
    request = Request(
        task=arguments.task,
        instruction=arguments.instruction,
        strength=arguments.strength,
        tile=arguments.tile,
        overwrite=arguments.overwrite,
        compare=arguments.compare,
        precision=arguments.precision,
        quality=arguments.quality,
    )
    others: list[Path] = []
    files = find_photographs([arguments.input], Path(arguments.output), on_other=others.append)
    print_left_out(others)
    model = InstructIPT.from_pretrained(arguments.model)
    check_request(model, request)
    try:
        with connected():
            status = print_reports(restore_everywhere(model, files, request), arguments.json)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        status = 130
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.restore", description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="a folder of photographs")
    parser.add_argument("--output", required=True, help="the folder for the restored ones")
    model = "instruct-ipt (comes with the package), a checkpoint folder, or models:/NAME@ALIAS"
    parser.add_argument("--model", default=RELEASED, help=model)
    parser.add_argument("--instruction", help="what is wrong, in words")
    parser.add_argument("--task", help="what to do, by name; with neither, each picture decides for itself")
    parser.add_argument("--strength", type=float, default=1.0, help="how strongly, 0 to 1.5")
    parser.add_argument("--tile", type=int, help="side in pixels of the pieces of a large picture")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="what to compute in")
    parser.add_argument(
        "--quality", choices=("normal", "best"), default="normal", help="best: a little better, in four times the time"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there; else it is skipped")
    parser.add_argument("--compare", action="store_true", help="also write before and after side by side")
    parser.add_argument("--json", action="store_true", help="print one JSON line for each file")
    return parser


if __name__ == "__main__":
    run(main)
