"""Work spread over local processes, with the results in order and bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import cv2

_ITEMS_PER_PROCESS = 8  # starting a process takes as long as working on about so many pictures
_AHEAD = 16  # items given out before the first result is taken: enough for a dozen cores

Item = TypeVar("Item")
Result = TypeVar("Result")
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]  # `map`, or what does the same elsewhere


def usable_cores() -> int:
    """How many cores this process may use: those it is bound to, where the system tells."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def processes(items: int, each: int = _ITEMS_PER_PROCESS) -> Iterator[Executor | None]:
    """Yield a pool of one process per usable core; None where `items` are done sooner without.

    A process is started for `each` items, and ends when this one does, however that ends.
    """
    count = min(usable_cores(), items // each)
    if count < 2:
        yield None
        return
    # Not forked: a fork copies the locks of threads that libraries may have started.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin) as pool:
        yield pool


def _begin() -> None:
    """In a process of the pool, before its first item."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave the process where its parent is killed: an item may take an hour, and nobody would take its result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def ordered_map(pool: Executor | None, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield function(item) for every item, in their order, from `pool` or in this process (None).

    Only a few items run ahead of the one that is taken, so results never pile up. What `function`
    raises is raised here.
    """
    if pool is None:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
