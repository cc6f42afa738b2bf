"""The right to move a registered model's aliases: one command at a time, on a store that can neither lock nor swap."""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import mlflow

LEASE = "promote.lease."  # first part of a tag of the registered model; a nonce follows
LASTS = 120.0  # seconds
MARGIN = 30.0  # seconds before its end in which nothing more is begun: MLflow's client may try a call for so long
WAIT = 10.0  # seconds for another one to be done: a move takes less than one


class LeaseError(RuntimeError):
    """Another one moves the aliases, or this one took too long; the message says who, since when and what to do."""


@contextmanager
def leased(client: mlflow.MlflowClient, model: str) -> Iterator[Callable[[], None]]:
    """Inside the block nobody else is in one for this model; yields what is to be called before each write.

    Each who comes writes a tag of its own and then reads those of all: of two, the later writer sees the other, and
    goes back. (One tag for all would be overwritten between writing and reading.) A lease ends with the block, or
    after LASTS seconds where its holder was killed; clocks of machines are taken to agree within MARGIN. Raises
    LeaseError where another one has it for longer than WAIT seconds; so does what is yielded, where it ran out.
    """
    own, give_up = f"{LEASE}{uuid.uuid4().hex}", time.monotonic() + WAIT
    while True:
        ends = time.monotonic() + LASTS - MARGIN
        other = _take(client, model, own)
        if other is None:
            break
        if time.monotonic() >= give_up:
            raise LeaseError(
                f"{model}: {other['who']} has been moving its aliases since {other['since']}; nothing was moved here. "
                f"When that is done, run the same again; if it was killed, from {other['until']} on"
            )
        time.sleep(random.uniform(0.05, 0.3))  # not in step with one who went back too

    def check() -> None:
        if time.monotonic() > ends or own not in client.get_registered_model(model).tags:
            raise LeaseError(
                f"{model}: moving its aliases took longer than {LASTS - MARGIN:g} seconds, so another one may do so "
                "now; run the same again, which finishes or forgets the move"
            )

    try:
        yield check
    finally:
        client.delete_registered_model_tag(model, own)


def _take(client: mlflow.MlflowClient, model: str, own: str) -> dict[str, str] | None:
    """Write the tag `own`; where another one has a lease, take it back and return that."""
    if found := _others(client, model, own):
        return found
    now = time.time()
    lease = {
        "who": f"{_user()} on {socket.gethostname()} (process {os.getpid()})",
        "since": _clock(now),
        "until": _clock(now + LASTS),
    }
    client.set_registered_model_tag(model, own, json.dumps(lease))
    found = _others(client, model, own)
    if found:
        client.delete_registered_model_tag(model, own)
    return found


def _others(client: mlflow.MlflowClient, model: str, own: str) -> dict[str, str] | None:
    """A lease that another one holds now; those that ran out are removed."""
    for name, value in client.get_registered_model(model).tags.items():
        if not name.startswith(LEASE) or name == own:
            continue
        lease = json.loads(value)
        if datetime.fromisoformat(lease["until"]).timestamp() > time.time():
            return lease
        client.delete_registered_model_tag(model, name)
    return None


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
