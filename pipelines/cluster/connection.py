"""The Ray cluster: the one that is named, or one started on this machine for the time of the stage."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.code import PACKAGES, code_here, differences
from pipelines.cluster.storage import Storage, StorageError
from pipelines.common.params import Ray, load_params
from pipelines.common.processes import usable_cores

ANSWER = 10.0  # seconds for a cluster to answer
OWN_RAY = "INSTRUCT_IPT_OWN_RAY"  # in the environment: the address of the one that `pipelines.repro` started here


class ClusterError(RuntimeError):
    """There is no cluster to work on; the message says what to do."""


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
    """Connect to the cluster in RAY_ADDRESS or params, or start one here; returns its address."""
    settings = load_params().ray
    address = os.environ.get("RAY_ADDRESS") or settings.address
    # What workers print and Ray narrates stays in Ray's own log files; errors reach the driver as exceptions.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        cpus = max(usable_cores(), max(worker_range(settings)[1], 1) * cpus_per_worker(settings))
        own_token()
        context: Any = ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        context = _join(address, settings, quiet)
    quiet_data()
    return context.address_info["address"]


def own_token() -> None:
    """To be called before Ray starts a cluster: a token for it in the environment, which all that it starts inherits.

    Who does not have it can run nothing there. Without, Ray would write one into the home folder, which there may not
    be. What its user has set (RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH) stays.
    """
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not named and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token":
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _join(address: str, settings: Ray, quiet: dict[str, Any]) -> Any:
    """Connect to a running cluster; its nodes get this checkout's code where they do not see the checkout.

    Returns what `ray.init` does, whose type is private to Ray.
    """
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address}: Ray Train does not run through Ray Client; run this on a node of the cluster, or as a Ray job"
        )
    check_answers(address)
    storage = Storage(settings.storage)
    code = {"py_modules": [str(Path(name).resolve()) for name in PACKAGES]} if storage.only_shared else {}
    try:
        context = ray.init(address, runtime_env=code, **quiet)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        if "InvalidAuthToken" in str(error.__cause__) or not isinstance(error, ConnectionError):
            raise ClusterError(
                f"the Ray cluster at {address} asks for a token, and none or another was given: set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to that of its nodes (docs/cluster.md)"
            ) from None
        raise no_cluster(address, error) from error
    check_nodes(storage)
    return context


def check_answers(address: str) -> None:
    """Raise ClusterError where nobody listens at HOST:PORT, at once: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":  # Ray looks for it on this machine
        return
    if not (host and port.isdecimal()):
        raise ClusterError(
            "RAY_ADDRESS or params.yaml.ray.address: expected local, auto or HOST:PORT, such as 10.0.0.1:6379, got "
            f"{address}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, OverflowError) as error:
        raise no_cluster(address, error) from error


def no_cluster(address: str, reason: Exception) -> ClusterError:
    """The error where no Ray runs."""
    return ClusterError(
        f"no Ray cluster at {address} (RAY_ADDRESS or params.yaml.ray.address): {reason}; start one with `ray start "
        "--head`, or set ray.address: local"
    )


def check_nodes(storage: Storage) -> None:
    """Raise StorageError where a node cannot read what this machine writes to the storage, and ClusterError where one
    has other code or libraries, which would make other data.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    name, token = f".reach-{uuid.uuid4().hex}.json", uuid.uuid4().hex
    storage.write_json(name, token)
    asked = {
        node: ray.remote(_look)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(storage.place, name, token)
        for node in nodes
    }
    try:
        answers = [(nodes[node], _answer(answer)) for node, answer in asked.items()]
    finally:
        storage.remove(name)
    blind = sorted({address for address, (sees, _) in answers if not sees})
    if blind:
        raise StorageError(
            f"params.yaml.ray.storage: {storage.place} is not shared: what is written here cannot be read on "
            f"{', '.join(blind)}; name a folder that all nodes mount, or s3://... (docs/cluster.md)"
        )
    here = code_here()
    for address, (_, there) in answers:
        if other := differences(here, there):
            raise ClusterError(
                f"the node {address} has {other}, so what it makes may be other data; install the same there "
                "(`make setup`, constraints.txt)"
            )


def _look(place: str, name: str, token: str) -> tuple[bool, dict[str, str]]:
    """Whether this node sees what was written to the storage, and its code."""
    try:
        return Storage(place).read_json(name) == token, code_here()
    except OSError:
        return False, {}


def _answer(asked: ray.ObjectRef) -> tuple[bool, dict[str, str]]:
    try:
        return ray.get(asked)
    except ray.exceptions.RayTaskError as error:  # its code is of another time, and has no such function
        return True, {"this code": f"({type(error.cause).__name__})"}


def quiet_data() -> None:
    """Keep Ray Data's progress bars and plans off the terminal, and its order the same in every pass."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def worker_range(settings: Ray) -> tuple[int, int]:
    """The fewest and the most workers that params ask for."""
    return settings.workers if isinstance(settings.workers, tuple) else (settings.workers, settings.workers)


def cpus_per_worker(settings: Ray) -> int:
    """The number in params, or the CPUs of the cluster (of this machine, where none is connected) for each worker."""
    if settings.cpus_per_worker != "auto":
        return settings.cpus_per_worker
    workers = max(worker_range(settings)[1], 1)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] if ray.is_initialized() else []
    cpus = [int(node.get("CPU", 0)) for node in nodes] or [usable_cores()]
    return max(min(sum(cpus) // workers, max(cpus)), 1)
