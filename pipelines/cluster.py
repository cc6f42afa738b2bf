"""The Ray cluster: the one in RAY_ADDRESS, else one started on this machine for the time of the stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data

from pipelines import params

READERS = 1  # logical CPUs beside the trainers', so that reading never waits for training to end


@contextmanager
def connected() -> Iterator[str]:
    """Inside the block Ray is connected, quietly; yields the cluster's address."""
    if ray.is_initialized():  # a caller's session (tests share one)
        yield ray.get_runtime_context().gcs_address
        return
    address = _start_or_join()
    try:
        yield address
    finally:
        ray.shutdown()


def _start_or_join() -> str:
    """Connect to the cluster in RAY_ADDRESS or start one here, on as many CPUs as this machine and the params need.

    Returns the address.
    """
    # What workers print and Ray narrates stays in Ray's own log files; errors reach the driver as exceptions.
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        context = ray.init(**quiet)
    else:
        training = params.load_params().ray
        cpus = max(len(os.sched_getaffinity(0)), max(training.workers, 1) * cpus_per_worker(training))
        context = ray.init(num_cpus=cpus + READERS, include_dashboard=False, **quiet)
    quiet_data()
    return context.address_info["address"]


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
