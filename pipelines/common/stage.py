"""How every stage and command begins and ends: its arguments, and exit status 0, or 1 with the reason in words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

CANNOT_GO_ON = (
    ValueError,
    RuntimeError,
    OSError,
)  # what our own code raises, disk full and missing files included


def run(main: Callable[[], None], description: str | None = None) -> None:
    """Call `main` and leave the process; what cannot go on is told on standard error, its last line the reason.

    With a `description`, its module's docstring, the command takes no arguments: `--help` prints it, any other is
    refused with exit status 2. Without, `main` reads its own. A mistake in the code (any other exception) keeps its
    traceback.
    """
    if description is not None:
        raw = argparse.RawDescriptionHelpFormatter
        argparse.ArgumentParser(prog=command(), description=description, formatter_class=raw).parse_args()
    try:
        main()
    except CANNOT_GO_ON as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        sys.exit(1)


def command() -> str:
    """How this process was called: `python -m pipelines.train`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else sys.argv[0]


def reason(error: BaseException) -> str:
    """The first cause in words: Ray wraps what went wrong in a worker into exceptions of its own."""
    failures = getattr(error, "worker_failures", None)  # ray.train: by rank
    if failures:
        return reason(next(iter(failures.values())))
    cause = getattr(error, "cause", None) or (error.__cause__ if type(error).__module__.startswith("ray") else None)
    if isinstance(cause, BaseException) and cause is not error:
        return reason(cause)
    return f"{error}" if isinstance(error, CANNOT_GO_ON) and str(error) else f"{type(error).__name__}: {error}"
