"""A training on a cluster as queues: what storage, links, cores, Ray's hand-out and meeting at every step make of it.

It does what the pipeline does (`pipelines/training/stream.py`, `groups.py`) with time in place of work. Segments are
planned in windows, each with readers and an executor of its own. A reader takes row groups from the storage and cuts
them; the executor hands segments out in their order; a worker fetches the next one while it trains on this one, turns
each batch into numbers, and meets the others in a ring all-reduce of its gradients, bucket by bucket.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import simpy

from benchmarks.cluster_parts import Cluster, Node, Outcome, Pipe, Waiting, transfer

PATIENCE = 0.1  # seconds for which Ray's executor waits at most until all that it has given out is read


@dataclass
class Segment:
    """What a worker gets at once."""

    rank: int
    steps: int
    node: Node | None = None  # where it was read
    is_read: bool = False


class Window:
    """Segments with their readers, and the process that hands them out."""

    def __init__(self, simulation: Simulation, lengths: list[int]) -> None:
        self.simulation, self.cluster, self.env = simulation, simulation.cluster, simulation.env
        self.segments = [Segment(rank, steps) for steps in lengths for rank in range(self.cluster.ranks)]
        self.shelves = [simpy.Store(self.env) for _ in range(self.cluster.ranks)]
        self.held = 0  # segments that are being read, wait or are trained on
        self.env.process(self.hand_out())

    def hand_out(self) -> Waiting:
        """Ray's executor: in each turn what was read goes on, in order, and readers get more."""
        cluster, env, nodes = self.cluster, self.env, self.simulation.nodes
        yield env.timeout(cluster.start)
        readers = [(nodes[place % len(nodes)], simpy.Resource(env)) for place in range(cluster.readers)]
        yield env.all_of([env.process(node.work(cluster.start_reader)) for node, _ in readers])
        reading: dict[simpy.Process, int] = {}  # and the reader
        given, handed = 0, 0
        while handed < len(self.segments):
            load = [0] * len(readers)
            for place in reading.values():
                load[place] += 1
            while given < len(self.segments) and self.has_room() and min(load) < cluster.in_flight:
                place = load.index(min(load))
                load[place] += 1
                reading[env.process(self.read(self.segments[given], *readers[place]))] = place
                given, self.held = given + 1, self.held + 1
            yield env.timeout(cluster.rest)
            if reading:
                yield env.all_of(list(reading)) | env.timeout(PATIENCE)
            done = [process for process in reading if process.processed]
            yield from nodes[0].work(cluster.turn + cluster.hand_out * len(done))
            for process in done:
                del reading[process]
            while handed < given and self.segments[handed].is_read:
                self.shelves[self.segments[handed].rank].put(self.segments[handed])
                handed += 1
            if not done and not cluster.rest:  # nothing is held back without time going by
                yield env.timeout(cluster.quantum)

    def has_room(self) -> bool:
        """Whether another segment may be read; one for each worker always may."""
        held = (self.held + 1) * self.cluster.segment_bytes
        return held <= self.cluster.read_ahead or self.held < self.cluster.ranks

    def read(self, segment: Segment, node: Node, reader: simpy.Resource) -> Waiting:
        """A reader takes row group after row group and cuts its samples."""
        cluster, outcome = self.cluster, self.simulation.outcome
        samples = segment.steps * cluster.samples
        groups = math.ceil(cluster.segment_groups * segment.steps / cluster.segment_steps)
        with reader.request() as turn:
            yield turn
            for _ in range(groups):
                size = cluster.group_rows * cluster.row_bytes
                yield self.env.timeout(cluster.storage_latency)
                yield from transfer(self.env, size, self.simulation.storage, node.into)
                yield from node.work(cluster.read * samples / groups)
                outcome.bytes_read += size
            yield from node.work(cluster.put)
        segment.node, segment.is_read = node, True
        outcome.samples_read += samples
        outcome.segments += 1


class Simulation:
    """One run of a cluster."""

    def __init__(self, cluster: Cluster, seed: int = 0) -> None:
        self.cluster, self.env, self.outcome = cluster, simpy.Environment(), Outcome()
        self.random = random.Random(seed)
        self.nodes = [Node(self.env, cluster) for _ in range(cluster.nodes)]
        self.links = [pipe for node in self.nodes for pipe in (node.into, node.out)]
        self.storage, self.ring = Pipe(cluster.storage_rate), Pipe(cluster.inside_rate)
        self.plan = cluster.windows
        self.windows: dict[int, Window] = {}
        self.meetings: dict[tuple[int, int], tuple[list[int], simpy.Event]] = {}
        self.exchanged = self.env.event().succeed()  # the end of the exchange that was begun last
        self.waited, self.met = 0.0, 0.0  # seconds of all workers
        self.marked = self.tally()  # when the clock starts

    def run(self) -> Outcome:
        """Until all workers have made all steps."""
        cluster, outcome = self.cluster, self.outcome
        self.env.run(self.env.all_of([self.env.process(self.train(rank)) for rank in range(cluster.ranks)]))
        outcome.seconds = self.env.now
        since = {name: now - then for (name, now), then in zip(self.tally().items(), self.marked.values(), strict=True)}
        seconds = since.pop("seconds")
        outcome.rate = since.pop("samples") / seconds
        outcome.step = cluster.ranks * cluster.samples / outcome.rate
        outcome.wait, outcome.meet = (since.pop(name) / seconds / cluster.ranks for name in ("waited", "met"))
        outcome.busy = {name: spent / seconds for name, spent in since.items()}
        return outcome

    def tally(self) -> dict[str, float]:
        """Seconds and samples up to now; of all workers, and those of storage, busiest link and cores."""
        return {
            "seconds": self.env.now,
            "samples": self.outcome.samples_trained,
            "waited": self.waited,
            "met": self.met,
            "storage": self.storage.carried / self.storage.rate,
            "links": max(pipe.carried / pipe.rate for pipe in self.links),
            "cores": max(node.worked for node in self.nodes) / self.cluster.cores,
        }

    def window(self, number: int) -> Window:
        """A window, whose reading begins when it is first asked for."""
        if number not in self.windows:
            self.windows[number] = Window(self, self.plan[number])
        return self.windows[number]

    def ahead(self, number: int, rank: int) -> simpy.Store:
        """A worker's segments of a window, of which one is fetched ahead."""
        ready = simpy.Store(self.env, capacity=1)
        self.env.process(self.fetch(number, rank, ready))
        return ready

    def fetch(self, number: int, rank: int, ready: simpy.Store) -> Waiting:
        """What was handed out to a worker comes to its node."""
        here = self.nodes[rank // self.cluster.workers]
        for _ in self.plan[number]:
            segment = yield self.window(number).shelves[rank].get()
            if segment.node is not here:
                size = self.cluster.segment_bytes * segment.steps / self.cluster.segment_steps
                yield from transfer(self.env, size, segment.node.out, here.into)
            yield ready.put(segment)

    def train(self, rank: int) -> Waiting:
        """A worker: segment after segment; half-way through a window it asks for the next."""
        ready, step = self.ahead(0, rank), 0
        for number, lengths in enumerate(self.plan):
            following, middle = None, step + sum(lengths) // 2
            for length in lengths:
                began = self.env.now
                yield ready.get()
                self.waited += self.env.now - began
                for _ in range(length):
                    if step == middle and number + 1 < len(self.plan):
                        following = self.ahead(number + 1, rank)
                    yield from self.step(rank, step)
                    step += 1
                self.window(number).held -= 1
            ready = following

    def step(self, rank: int, step: int) -> Waiting:
        """Bytes to numbers, the passes, and the exchanges, which go on beside the backward pass."""
        cluster, env = self.cluster, self.env
        began = env.now
        yield from self.nodes[rank // cluster.workers].work(cluster.convert * cluster.samples)
        self.waited += env.now - began
        if step == 0:
            self.outcome.first = env.now
        if rank == 0 and step == int(cluster.steps * cluster.warm):
            self.marked = self.tally()
        slow = max(self.random.gauss(1, cluster.jitter), 0.0)
        yield from self.compute(rank, cluster.forward * slow)
        exchange = env.event().succeed()
        for number, size in enumerate(cluster.buckets):
            yield from self.compute(rank, cluster.backward * slow * size / sum(cluster.buckets))
            exchange = self.arrive(step, number, size)
        began = env.now
        yield exchange
        yield self.arrive(step, len(cluster.buckets), 0)  # of the tasks' errors, a few bytes
        self.met += env.now - began
        yield from self.compute(rank, cluster.update * slow)
        self.outcome.samples_trained += cluster.samples

    def compute(self, rank: int, seconds: float) -> Waiting:
        """A part of a step, where steps are made."""
        if self.cluster.on_cores:
            yield from self.nodes[rank // self.cluster.workers].work(seconds)
        else:
            yield self.env.timeout(seconds)

    def arrive(self, step: int, number: int, size: float) -> simpy.Event:
        """A worker has its part of an exchange; the last one to come begins it. The event is its end."""
        arrived, end = self.meetings.setdefault((step, number), ([], self.env.event()))
        arrived.append(size)
        if len(arrived) == self.cluster.ranks:
            del self.meetings[step, number]
            self.env.process(self.exchange(size, self.exchanged, end))
            self.exchanged = end
        return end

    def exchange(self, size: float, before: simpy.Event, end: simpy.Event) -> Waiting:
        """A ring all-reduce: through each link goes 2 (n - 1) / n of the bytes, once round and round again."""
        cluster = self.cluster
        yield before
        links = self.links if cluster.nodes > 1 else []
        yield from transfer(self.env, 2 * (cluster.ranks - 1) / cluster.ranks * size, self.ring, *links)
        if cluster.nodes > 1:
            yield self.env.timeout(2 * cluster.nodes * cluster.link_latency)
        end.succeed()
