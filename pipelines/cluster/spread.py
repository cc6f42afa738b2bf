"""Work spread over the nodes of the cluster, with the results in order and bounded memory."""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import ray

from pipelines.cluster.connection import OWN_RAY, ClusterError, connected
from pipelines.common.params import Ray

Item = TypeVar("Item")
Result = TypeVar("Result")
Begun = TypeVar("Begun")  # what a task will return, or the pieces of that: of Ray's ObjectRef

AHEAD = 2  # items given out for each CPU before the first result is taken
RETRIES = 10  # of an item whose process or node died
BATCH = 16  # small items given out at once
LOOK = 100  # items between looks how many CPUs there are


def spread(function: Callable[[Item], Result], items: Iterable[Item], **options: Any) -> Iterator[Result]:
    """Yield function(item) for every item, in their order, from the nodes of the connected cluster.

    Each takes one CPU, or what `options` of Ray say. Only a few items run ahead of the one that is taken, so the driver
    holds as little of many as of few. What `function` raises is raised here.
    """
    work, shared = remote(_call, scheduling_strategy="SPREAD", **options), ray.put(function)
    for result in ahead(work.remote(shared, item) for item in items):
        yield ray.get(result)


def spread_small(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """As `spread`, for items that take milliseconds, as long as Ray needs for one of its tasks: each has several."""
    rest = iter(items)
    batches = iter(lambda: list(itertools.islice(rest, BATCH)), [])
    for results in spread(functools.partial(_call_all, function), batches):
        yield from results


def remote(function: Callable[..., Any], **options: Any) -> Any:
    """Of which each `.remote(...)` is a task for one CPU of any node, and for that of another one where that dies."""
    return ray.remote(function).options(max_retries=RETRIES, **options)


def ahead(tasks: Iterable[Begun]) -> Iterator[Begun]:
    """Yield `tasks`, of which each begins when it is drawn, in their order; a few are drawn ahead of the one taken.

    So many that the cluster's CPUs are at work, those of nodes that come later too.
    """
    most = 0
    waiting: deque[Begun] = deque()
    for number, task in enumerate(tasks):
        if number % LOOK == 0:
            most = AHEAD * cpus()
        waiting.append(task)
        if len(waiting) > most:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def cpus() -> int:
    """Of all nodes of the cluster; at least one."""
    return max(int(ray.cluster_resources().get("CPU", 0)), 1)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _call_all(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


@contextmanager
def several_nodes(settings: Ray) -> Iterator[bool]:
    """Whether a cluster of more than one node is connected inside: that of params or RAY_ADDRESS.

    For work that this machine does as well by itself: a Ray of its own, which would cost seconds, is not started, and a
    cluster that cannot be worked on is told and done without.
    """
    address = os.environ.get("RAY_ADDRESS") or settings.address
    if not ray.is_initialized() and address in ("local", os.environ.get(OWN_RAY)):
        yield False
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(connected())
        except ClusterError as error:
            print(f"{error}; this machine works alone", flush=True)
            yield False
            return
        yield sum(node["Alive"] for node in ray.nodes()) > 1
