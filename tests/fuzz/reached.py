"""How much of the readers' code the inputs of fuzzing reach: `PYTHONPATH=tests python -m fuzz.reached [FOLDER]`.

FOLDER is what `make fuzz` has made, build/fuzz by default; with what the code and the repository have. Lines and
branches by file, as coverage.py counts them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import coverage

_CODE = ["ipt.photos", "ipt.page.guard", "ipt.page.requests", "ipt.network.checkpoint", "ipt.network.config"]
_CODE += ["ipt.weights", "pipelines.common.plain_yaml"]


def main(folder: Path) -> None:
    """Run every input once and print the table."""
    logging.disable()
    counter = coverage.Coverage(branch=True, source_pkgs=_CODE, data_file=None)
    counter.start()
    from fuzz.inputs import inputs
    from fuzz.limits import CostlyError
    from fuzz.targets import TARGETS

    printed, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # the libraries' complaints
    for name, target in TARGETS.items():
        found = inputs(name, folder)
        for data in found.values():
            with contextlib.suppress(Exception, CostlyError):  # finds are told by `make fuzz`
                target.run(data)
        print(f"{name}: {len(found)} inputs")
    os.dup2(printed, 2)
    counter.stop()
    counter.report(show_missing=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/fuzz"))
