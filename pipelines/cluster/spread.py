"""Work spread over the nodes of the cluster, with the results in order and bounded memory."""

from __future__ import annotations

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

AHEAD = 2  # items given out for each CPU before the first result is taken
RETRIES = 10  # of an item whose process or node died
LOOK = 100  # items between looks how many CPUs there are


def spread(function: Callable[[Item], Result], items: Iterable[Item], **options: Any) -> Iterator[Result]:
    """Yield function(item) for every item, in their order, from the nodes of the connected cluster.

    Each takes one CPU, or what `options` of Ray say. Only a few items run ahead of the one that is taken, so the driver
    holds as little of many as of few. What `function` raises is raised here.
    """
    work: Any = ray.remote(_call).options(max_retries=RETRIES, scheduling_strategy="SPREAD", **options)
    shared, ahead = ray.put(function), 0
    waiting: deque[ray.ObjectRef] = deque()
    for number, item in enumerate(items):
        if number % LOOK == 0:
            ahead = AHEAD * max(int(ray.cluster_resources().get("CPU", 0)), 1)
        waiting.append(work.remote(shared, item))
        if len(waiting) > ahead:
            yield ray.get(waiting.popleft())
    while waiting:
        yield ray.get(waiting.popleft())


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


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
