"""What became of each file, told to a person or, as JSON, to a program."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ipt.network.config import CLEAN

if TYPE_CHECKING:
    from ipt.restoring.photographs import Report


def print_reports(reports: Iterable[Report], as_json: bool) -> int:
    """Print a line for each file as it is done; the exit status: 1 where a file failed, else 0."""
    failed = 0
    for report in reports:
        failed += report.status == "failed"
        if as_json:
            print(report.to_json(), flush=True)
        elif report.status == "failed":
            print(printable(f"{report.file}: failed: {report.error}"), file=sys.stderr, flush=True)
        else:
            print(printable(f"{report.file}: {describe(report)}"), flush=True)
    if failed:
        print(f"ipt: {failed} file{'s' if failed > 1 else ''} could not be restored", file=sys.stderr)
    return int(failed > 0)


def print_left_out(files: Iterable[Path]) -> None:
    """Say on standard error how many files by suffix are left alone, if any."""
    others = Counter(file.suffix.lower() or "without suffix" for file in set(files))
    if others:
        told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        print(printable(f"ipt: left out: {told} (files of other kinds)"), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text with what standard output does not show spelled out: a file name that is not UTF-8, or where output is
    written in a code page, as into a file on Windows, what that has not."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def describe(report: Report) -> str:
    """What became of a file that did not fail, in words."""
    if report.status == "skipped":
        return f"skipped, {report.output} is there already (--overwrite replaces it)"
    if report.by == "instruction":
        why = f"understood: {', '.join(report.understood or ())}"
    elif report.by == "blind":
        why = _seen(report)
    else:
        why = "as asked"
    done = ", ".join(report.tasks)
    if report.status == "unchanged":
        done = f"left as it is, nothing to {done}" if report.tasks else "left as it is"
    return f"{done} ({why}), {report.width} x {report.height}, {report.seconds:.1f} s -> {report.output}"


def _seen(report: Report) -> str:
    likely = max(report.probabilities, key=report.probabilities.__getitem__)
    sure = f"{report.probabilities[likely]:.0%}"
    unclear = "instruction not understood; " if report.understood == () else ""
    if report.tasks:
        return f"{unclear}the picture needs it, {sure} sure"
    if likely == CLEAN:
        return f"{unclear}the picture looks clean, {sure} sure"
    return f"{unclear}not sure what the picture needs; most likely {likely}, {sure}"
