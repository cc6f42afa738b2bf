"""The Ray cluster: the one in RAY_ADDRESS, else one started on this machine for the time of the stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data

from pipelines import params

READERS = 2  # logical CPUs beside the trainers', so that reading never waits for training to end


@contextmanager
def connected(training: params.Ray | None = None) -> Iterator[None]:
    """Inside the block Ray is connected, quietly; a cluster started here has room for `training` and its readers."""
    if ray.is_initialized():  # a caller's session (tests share one)
        yield
        return
    # What workers print and Ray narrates stays in Ray's own log files; errors reach the driver as exceptions.
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        cpus = None
        if training:
            cpus = max(training.workers, 1) * cpus_per_worker(training) + READERS
        ray.init(num_cpus=cpus, include_dashboard=False, **quiet)
    quiet_data()
    try:
        yield
    finally:
        ray.shutdown()


def quiet_data() -> None:
    """Keep Ray Data's progress bars and plans off the terminal, and its order the same in every pass."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def cpus_per_worker(settings: params.Ray) -> int:
    """The number in params, or this machine's cores shared out among the workers."""
    if settings.cpus_per_worker != "auto":
        return settings.cpus_per_worker
    return max(len(os.sched_getaffinity(0)) // max(settings.workers, 1), 1)
