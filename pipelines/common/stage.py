"""How every stage and command begins and ends: its arguments, and exit status 0, or 1 with the reason in words."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

CANNOT_GO_ON = (
    ValueError,
    RuntimeError,
    OSError,
)  # what our own code raises, disk full and missing files included
_OURS = re.compile(r"^(?:pipelines|ipt|degradations)\.[\w.]+: (.+)$", re.MULTILINE)  # the end of a traceback of ours
_OF_DATA = re.compile(r"^pipelines\.data\.[\w.]+: (.+)$", re.MULTILINE)


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
    except Exception as error:
        words = _told(error)
        if words is None:
            raise
        print(f"error: {words}", file=sys.stderr)
        sys.exit(1)


def command() -> str:
    """How this process was called: `python -m pipelines.train`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else sys.argv[0]


def reason(error: BaseException) -> str:
    """The first cause in words: Ray wraps what went wrong in a worker into exceptions of its own."""
    first = _causes(error)[-1]
    return _told(error) or f"{type(first).__name__}: {first}"


def of_data(error: BaseException) -> str | None:
    """What an exception that `pipelines.data` defines said, anywhere inside of `error`: data is not what it should be.

    None where there is none. To try again does not help: such data has to be made anew.
    """
    causes = _causes(error)
    raised = (str(each) for each in causes if type(each).__module__.startswith("pipelines.data."))
    return next(raised, None) or _as_text(causes, _OF_DATA)


def _told(error: BaseException) -> str | None:
    """What our own code said where it could not go on; None for a mistake in the code."""
    causes = _causes(error)
    if isinstance(causes[-1], CANNOT_GO_ON):
        return str(causes[-1]) or type(causes[-1]).__name__
    return _as_text(causes, _OURS)


def _as_text(causes: list[BaseException], pattern: re.Pattern[str]) -> str | None:
    """What the first traceback inside of them that ends so said, where Ray Data passes it on as text alone."""
    found = (pattern.search(str(each)) for each in causes)
    return next((each[1] for each in found if each), None)


def _causes(error: BaseException) -> list[BaseException]:
    """An exception, and what is inside of it as far as Ray keeps that."""
    failures = getattr(error, "worker_failures", None)  # ray.train: by rank
    if failures:
        return [error, *_causes(next(iter(failures.values())))]
    cause = getattr(error, "cause", None) or getattr(error, "controller_failure", None)
    cause = cause or (error.__cause__ if type(error).__module__.startswith("ray") else None)
    return [error, *_causes(cause)] if isinstance(cause, BaseException) and cause is not error else [error]
