"""Guided fuzzing of all that reads what strangers made, until it is stopped; exits with 1 where something was found.

It goes round the targets (`fuzz.targets`). What reaches new code is kept in the folder's `corpus`, where the next call
goes on; what is found, in `finds`, with what it did.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.targets import Target

FOLDER = Path("build/fuzz")
_ROUND = 600.0  # seconds, of all targets together
_MOST_FINDS = 5  # of a target in one round: what is found again and again hides the rest


@dataclass
class Tally:
    """What came of a target so far; seconds are the processor's."""

    inputs: int = 0
    edges: int = 0
    seconds: float = 0.0
    finds: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.inputs} inputs in {self.seconds:.0f} s, {self.edges} edges of code, {len(self.finds)} finds"


def main() -> None:
    """Fuzz, and tell a line for each target in each round; the seconds are all that this takes."""
    started = time.time()
    if find_spec("atheris") is None:
        sys.exit("fuzz: atheris is missing; the extra dev has it where there are wheels, on Linux with x86-64")
    from fuzz.guided import load_targets

    targets = load_targets()
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(targets)}; all by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(targets):
        parser.error(f"{min(unknown)}: no target; expected some of {', '.join(targets)}")
    tallies = {name: Tally() for name in arguments.targets or targets}
    try:
        fuzz(targets, tallies, arguments.folder, started + arguments.seconds)
    except KeyboardInterrupt:
        print()
    for name, tally in tallies.items():
        print(f"fuzz: {name}: in all {tally}")
    found = [path for tally in tallies.values() for path in tally.finds]
    for path in found:
        print(f"fuzz: found {path}; again with: PYTHONPATH=tests {sys.executable} -m fuzz.replay {path}")
    sys.exit(bool(found))


def fuzz(targets: dict[str, Target], tallies: dict[str, Tally], folder: Path, until: float) -> None:
    """Go round the targets until a time in seconds since 1970, counting in `tallies`."""
    shares = sum(targets[name].share for name in tallies)
    while (left := until - time.time()) > 1:
        end = time.time()
        for name, tally in tallies.items():
            end += min(left, _ROUND) * targets[name].share / shares
            before = len(tally.finds)
            while end - time.time() > 1 and len(tally.finds) - before < _MOST_FINDS:
                _fuzz_one(name, targets[name], tally, folder, end)
            print(f"fuzz: {name}: {tally}", flush=True)


def _fuzz_one(name: str, target: Target, tally: Tally, folder: Path, until: float) -> None:
    """One process: to `until`, or to the first finding."""
    grown, finds = folder / "corpus" / name, folder / "finds"
    for place in (grown, finds):
        place.mkdir(parents=True, exist_ok=True)
    from fuzz.guided import run_apart

    outcome = run_apart(name, target, until, finds, grown)
    tally.inputs += outcome.inputs
    tally.edges = max(tally.edges, outcome.edges)
    tally.seconds += outcome.seconds
    if outcome.known:
        print(f"fuzz: {name}: {outcome.found} crashes pi-heif, which is known", flush=True)
    elif outcome.found is not None:
        tally.finds.append(outcome.found)
        print(f"fuzz: {name}: found {outcome.found}", flush=True)
    if outcome.stopped:
        raise KeyboardInterrupt


if __name__ == "__main__":
    main()
