"""What a simulated cluster is made of: its numbers, and what several want at once, such as links and cores."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

Waiting = Generator[simpy.Event, Any, None]

PIECE = 5e6  # bytes that go through a link at once, so that those who share it take turns


@dataclass(frozen=True)
class Cluster:
    """A cluster, what it trains, and what work costs there: seconds (of a core, where one works), bytes, bytes/s."""

    nodes: int
    workers: int  # of each node
    cores: int  # of each node, for readers, workers and, on the first, Ray's executors
    samples: int  # of a worker in a step
    steps: int
    # reading
    segment_steps: int  # steps of a worker that are read at once
    group_rows: int  # of a row group
    segment_groups: int  # row groups that are read for a segment
    row_bytes: float  # in the storage
    sample_bytes: float  # once it is cut
    read: float  # to read and cut a sample
    read_ahead: float = math.inf  # bytes of segments of a window that may wait or be trained on, all nodes together
    storage_rate: float = math.inf
    storage_latency: float = 0.0  # of all requests that a row group takes
    # handing out
    window: int = 200  # segments planned at once
    readers: int = 2  # of all workers
    in_flight: int = 2  # segments that a reader has at once
    rest: float = 0.0  # of the executor between two turns
    turn: float = 0.0  # of the executor, each turn
    hand_out: float = 0.0  # of the executor, each segment
    put: float = 0.0  # of Ray on the reader's node, each segment
    start: float = 0.0  # before a window's readers start
    start_reader: float = 0.0  # of each reader before it reads
    # training
    convert: float = 0.0  # of a worker before a step, each sample: bytes to numbers
    forward: float = 0.0  # of a step
    backward: float = 0.0
    update: float = 0.0
    jitter: float = 0.0  # standard deviation of a step's time over its mean
    on_cores: bool = False  # a step takes a core, not a device of its own
    buckets: tuple[float, ...] = (1.0,)  # bytes of gradients that are exchanged together, in the backward pass's order
    inside_rate: float = math.inf  # of the ring inside a node
    link_rate: float = math.inf  # of a node's link, each way
    link_latency: float = 0.0  # of a hop from node to node
    # the simulation itself
    quantum: float = 0.005  # seconds for which a core is held at once
    warm: float = 0.025  # share of the steps after which the clock starts

    @property
    def ranks(self) -> int:
        """Workers of all nodes."""
        return self.nodes * self.workers

    @property
    def segment_bytes(self) -> float:
        """Of a whole segment, once it is cut."""
        return self.segment_steps * self.samples * self.sample_bytes

    @property
    def windows(self) -> list[list[int]]:
        """The steps of each segment of a worker, window by window."""
        whole, rest = divmod(self.steps, self.segment_steps)
        lengths = [self.segment_steps] * whole + [rest] * (rest > 0)
        each = max(self.window // self.ranks, 1)
        return [lengths[first : first + each] for first in range(0, len(lengths), each)]


@dataclass
class Outcome:
    """What came of a run; `rate` and shares are of the time after the first steps."""

    samples_read: int = 0
    samples_trained: int = 0
    segments: int = 0  # handed out
    bytes_read: float = 0.0
    first: float = 0.0  # seconds until all workers have begun
    seconds: float = 0.0  # until all have ended
    rate: float = 0.0  # samples a second
    step: float = 0.0  # seconds of a step
    wait: float = 0.0  # share of a worker's time between the end of a step and its next batch
    meet: float = 0.0  # share of a worker's time in which it waits for the others' gradients
    busy: dict[str, float] = field(default_factory=dict)  # by resource, share of the time; of its busiest node


class Pipe:
    """What is sent through it passes in turn, at a rate."""

    def __init__(self, rate: float) -> None:
        self.rate, self.free, self.carried = rate, 0.0, 0.0

    def book(self, now: float, size: float) -> float:
        """When so many bytes will have passed."""
        self.free = max(self.free, now) + size / self.rate
        self.carried += size
        return self.free


class Node:
    """Cores, and the two ways of a link."""

    def __init__(self, env: simpy.Environment, cluster: Cluster) -> None:
        self.env, self.cores, self.worked = env, simpy.Resource(env, cluster.cores), 0.0
        self.into, self.out, self.quantum = Pipe(cluster.link_rate), Pipe(cluster.link_rate), cluster.quantum

    def work(self, seconds: float) -> Waiting:
        """So long on a core, in turns with who else wants one."""
        self.worked += seconds
        while seconds > 0:
            with self.cores.request() as core:
                yield core
                yield self.env.timeout(min(seconds, self.quantum))
            seconds -= self.quantum


def transfer(env: simpy.Environment, size: float, *pipes: Pipe) -> Waiting:
    """So many bytes through all of these, piece by piece; the slowest says when a piece has passed."""
    while size > 0:
        piece = min(size, PIECE)
        yield env.timeout(max(pipe.book(env.now, piece) for pipe in pipes) - env.now)
        size -= piece
