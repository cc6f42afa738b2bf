"""How much memory this process may still take: what the machine has free, or less where a control group holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_FILES = {  # of a group by the kind of its mount: its limits, what it uses, and the cache of files in memory.stat
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that are free: the least of the machine's and those of this process's control groups (`cgroup_free`)."""
    available = psutil.virtual_memory().available
    held = cgroup_free(root)
    return available if held is None else min(available, held)


def cgroup_free(root: Path = Path("/")) -> int | None:
    """Bytes that the Linux control groups of this process, v1 and v2, leave it; None where there are none with a limit.

    Of the process's own group and all above it counts the least of limit - use + cache of files that were not read
    again lately (`inactive_file`), which the kernel gives up first; so counts Kubernetes too. Files are those below
    `root`: /proc/self/cgroup, /proc/self/mountinfo and what that names
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../cgroup-v1/memory.html).
    """
    free = [left for kind, folder in _groups(root) if (left := _left(folder, kind)) is not None]
    return min(free, default=None)


def _groups(root: Path) -> Iterator[tuple[str, Path]]:
    """The kind and folder of each group that may limit this process's memory, from its own one up."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        kind, options = system.split()[0], system.split()[-1]
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        shown, place = mount.split()[3:5]  # a container may see a part of the tree alone
        below = paths[kind].relative_to(shown) if paths[kind].is_relative_to(shown) else PurePosixPath()
        below = PurePosixPath() if ".." in below.parts else below  # of a group outside of this namespace
        for group in (below, *below.parents):
            yield kind, root / place.lstrip("/") / group


def _left(folder: Path, kind: str) -> int | None:
    """What a group leaves; None where it has no limit or does not say what it uses."""
    limits, use, cache = _FILES[kind]
    least = min((limit for name in limits if (limit := _number(_lines(folder / name))) is not None), default=None)
    used = _number(_lines(folder / use))
    if least is None or used is None:
        return None
    kept = _number([line.split()[1] for line in _lines(folder / "memory.stat") if line.split()[0] == cache])
    return max(least - max(used - (kept or 0), 0), 0)


def _lines(path: Path) -> list[str]:
    """The lines of a file; none where it cannot be read, as on systems without control groups."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(lines: list[str]) -> int | None:
    """The number in a file of one; None for `max` and where there is none."""
    return int(lines[0]) if lines and lines[0].strip().isdecimal() else None
