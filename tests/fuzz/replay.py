"""What an input does, that fuzzing has found: `python -m fuzz.replay FILE ...`; the target is how its name begins."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from fuzz.targets import TARGETS


def main(paths: list[str]) -> None:
    """Tell of each file whether it is taken, refused or a finding; exits with 1 where one is."""
    found = 0
    for path in map(Path, paths):
        target = TARGETS[path.name.partition("-")[0]]
        try:
            print(f"{path}: {'taken' if target.run(path.read_bytes()) else 'refused'}")
        except BaseException:
            found += 1
            print(f"{path}: found: {traceback.format_exc()}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])
