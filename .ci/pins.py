"""How old constraints.txt is: when each version was released, what would be taken today, what was withdrawn.

Exit status 1 where the index has withdrawn ("yanked") a version that is named there: name another.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

OLD = 365  # days
_WITHDRAWN = re.compile(r'^warning: `([^=`]+)==[^`]+` is yanked(?: \(reason: "(.*)"\))?', re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """A version that is named in constraints.txt."""

    name: str
    version: str
    released: date  # its first file
    newest: str  # of those that fit together: what would be taken today
    withdrawn: str | None = None  # the reason

    def describe(self, today: date) -> str:
        """A line for a person."""
        marks = [f"today: {self.newest}"] if self.newest != self.version else []
        if (days := (today - self.released).days) > OLD:
            marks.append(f"old: {days} days")
        if self.withdrawn is not None:
            marks.append(f"WITHDRAWN: {self.withdrawn or 'no reason given'}")
        return f"{self.released}  {f'{self.name}=={self.version}':<44}{', '.join(marks)}".rstrip()


def find_pins(folder: Path) -> list[Pin]:
    """The pins of `folder`/constraints.txt, the oldest first; RuntimeError with what uv says where it finds none.

    What would be taken today is what the extras of `folder`/pyproject.toml, without the pins, come to.
    """
    locked, warnings = _resolved(folder, "constraints.txt", "--no-deps")
    free, _ = _resolved(folder, "pyproject.toml", "--all-extras")
    newest = {package["name"]: package["version"] for package in free}
    withdrawn = dict(_WITHDRAWN.findall(warnings))
    pins = []
    for package in locked:
        name, version = package["name"], package["version"]
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        released = min(file["upload-time"] for file in files).date()
        pins.append(Pin(name, version, released, newest.get(name, version), withdrawn.get(name)))
    return sorted(pins, key=lambda pin: (pin.released, pin.name))


def _resolved(folder: Path, requirements: str, *options: str) -> tuple[list[dict], str]:
    """The packages of a lock file (https://peps.python.org/pep-0751/) that uv makes of `requirements`; its warnings."""
    command = [sys.executable, "-m", "uv", "pip", "compile", requirements, *options, "--format", "pylock.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{requirements}: {done.stderr.strip()}")
    return tomllib.loads(done.stdout)["packages"], done.stderr


def main() -> int:
    """Print the pins of this checkout."""
    try:
        pins = find_pins(Path(__file__).parents[1])
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    today = datetime.now(UTC).date()
    for pin in pins:
        print(pin.describe(today))
    old = sum((today - pin.released).days > OLD for pin in pins)
    other = sum(pin.newest != pin.version for pin in pins)
    withdrawn = sum(pin.withdrawn is not None for pin in pins)
    print(
        f"{len(pins)} pins: {old} older than a year, {other} that would be another version today, {withdrawn} withdrawn"
    )
    return int(withdrawn > 0)


if __name__ == "__main__":
    sys.exit(main())
