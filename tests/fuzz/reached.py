"""How much of the readers' code the inputs of fuzzing reach, and which are worth keeping.

    PYTHONPATH=tests python -m fuzz.reached [--keep] [FOLDER]

FOLDER is what `make fuzz` has made, build/fuzz by default; to it comes what the code makes and the repository keeps.
Told are lines and branches by file, as coverage.py counts them. With --keep, inputs that reach a branch of these files
or of Pillow's readers which no other kept one reaches are copied into the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import coverage

if TYPE_CHECKING:
    from fuzz.targets import Target

_CODE = ["ipt.photos", "ipt.page.guard", "ipt.page.requests", "ipt.network.checkpoint", "ipt.network.config"]
_CODE += ["ipt.weights", "pipelines.common.plain_yaml"]
_READERS = [f"PIL.{name}ImagePlugin" for name in ("Avif", "Bmp", "Jpeg", "Mpo", "Png", "Tiff", "WebP")]
_LARGEST = 3000  # bytes of an input that is kept


def main() -> None:
    """Print the table, or keep what is worth it."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.reached", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--keep", action="store_true", help="copy what reaches more into the repository")
    arguments = parser.parse_args()
    logging.disable()  # the reader of forms tells each mistake
    counter = _counter(_CODE)
    with counter.collect():
        from fuzz.inputs import inputs
        from fuzz.targets import TARGETS  # here, so that what runs at import counts

        for name, target in TARGETS.items():
            found = inputs(name, arguments.folder)
            if not arguments.keep:
                for data in found.values():
                    run(target, data)
            print(f"{name}: {len(found)} inputs", flush=True)
    if not arguments.keep:
        counter.report(show_missing=True)
        return
    for name, target in TARGETS.items():
        print(f"{name}: {keep(name, target, arguments.folder)} more are kept", flush=True)


def _counter(code: list[str]) -> coverage.Coverage:
    counter = coverage.Coverage(branch=True, source_pkgs=code, data_file=None)
    counter.set_option("run:disable_warnings", ["module-not-measured"])
    return counter


def keep(name: str, target: Target, folder: Path) -> int:
    """Copy inputs, small ones first, that reach what none before reached; how many those were."""
    from fuzz.inputs import KEPT, inputs

    ours = inputs(name)
    more = {key: data for key, data in inputs(name, folder).items() if key not in ours and len(data) <= _LARGEST}
    reached, count = set().union(*(arcs(target, data) for data in ours.values())), 0
    for key, data in sorted(more.items(), key=lambda item: len(item[1])):
        if new := arcs(target, data) - reached:
            reached |= new
            count += 1
            (KEPT / name).mkdir(parents=True, exist_ok=True)
            (KEPT / name / key[:12]).write_bytes(data)
    return count


def arcs(target: Target, data: bytes) -> set[tuple[str, int, int]]:
    """The steps from line to line that an input takes, by file."""
    counter = _counter([*_CODE, *_READERS])
    with counter.collect():
        run(target, data)
    told = counter.get_data()
    return {(file, *arc) for file in told.measured_files() for arc in told.arcs(file) or ()}


def run(target: Target, data: bytes) -> None:
    """Give a target an input, whatever comes of it; what is found is told by `make fuzz`."""
    from fuzz.limits import CostlyError

    said, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # where the libraries complain
    try:
        with contextlib.suppress(Exception, CostlyError):
            target.run(data)
    finally:
        os.dup2(said, 2)
        os.close(said)
        os.close(nowhere)


if __name__ == "__main__":
    main()
