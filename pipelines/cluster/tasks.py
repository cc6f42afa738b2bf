"""Functions called on all nodes of the connected cluster, a few ahead of the results that are taken."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

_BATCH = 16  # items that one task takes: a task costs Ray a millisecond
_RETRIES = 10  # of a task whose process or node died
_AHEAD = 2  # tasks for each CPU of the cluster: one at work, one to go on with

Item = TypeVar("Item")
Result = TypeVar("Result")


def remote(function: Callable[..., Any], **options: Any) -> Any:
    """A function of which each `.remote(...)` is a task for one CPU of any node, and another where that one dies."""
    return ray.remote(function).options(max_retries=_RETRIES, **options)


def on_nodes(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield function(item) for every item, in their order, from the CPUs of the cluster.

    What `function` raises is raised here. Where a node dies its items are given to another one.
    """
    task, rest = remote(_each), iter(items)
    batches = iter(lambda: list(itertools.islice(rest, _BATCH)), [])
    for results in ahead(task.remote(function, batch) for batch in batches):
        yield from ray.get(results)


def _each(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    import cv2

    cv2.setNumThreads(1)  # Ray runs one of these per core
    return [function(item) for item in items]


def cpus() -> int:
    """Of all nodes of the cluster."""
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def ahead(calls: Iterable[Result]) -> Iterator[Result]:
    """Yield `calls`, which each begins a task when it is drawn, in their order; some are drawn ahead of the one taken.

    As many as keep the cluster's CPUs at work, also those of nodes that come later: what waits does not grow with the
    number of calls.
    """
    waiting: deque[Result] = deque()
    for call in calls:
        waiting.append(call)
        if len(waiting) > _AHEAD * cpus():
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
