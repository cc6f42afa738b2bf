"""Changes of checkpoints: an input is a config and a file of weights, each with its length before it."""

from __future__ import annotations

import random
import struct

from fuzz.bodies import change_json
from fuzz.raw import Change, change_bytes


def join_checkpoint(config: bytes, weights: bytes) -> bytes:
    """Two files as one input."""
    return struct.pack("<L", len(config)) + config + weights


def split_checkpoint(data: bytes) -> tuple[bytes, bytes]:
    """The config and the weights of an input, as far as it goes."""
    length = int.from_bytes(data[:4], "little")
    return data[4 : 4 + length], data[4 + length :]


def change_checkpoint(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """The config changed as JSON, or the head of the weights, its length right again, or any bytes."""
    config, weights = split_checkpoint(data)
    kind = rng.random()
    if kind < 0.5:
        return join_checkpoint(change_json(config, rng, plain), weights)
    if kind < 0.9 and len(weights) > 8:
        length = int.from_bytes(weights[:8], "little")
        head = change_json(weights[8 : 8 + length], rng, plain)
        return join_checkpoint(config, struct.pack("<Q", len(head)) + head + weights[8 + length :])
    return change_bytes(data, rng, plain)
