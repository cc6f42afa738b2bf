"""The machine of the measured rows in the simulation, and what it measured: a model has to have these right first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cluster_numbers import (
    AT_ONCE,
    AT_ONCE_BF16,
    BARE,
    BESIDE,
    CROP,
    EXCHANGE_RATE,
    FIRST_BUCKET,
    GRADIENTS,
    GROUP_ROWS,
    HAND_OUT,
    JITTER,
    NUMBERS,
    PUT,
    RAY_SHARE,
    READ,
    READ_PNG,
    ROW,
    SHARES,
    START,
    START_READER,
    TURN_COST,
)
from benchmarks.cluster_parts import Cluster, Outcome
from pipelines.training.stream import TURN, WINDOW, reader_count


def shared(seconds: float, gradients: float) -> dict:
    """A step's parts, and its gradients in buckets."""
    forward, backward, update = (seconds * share for share in SHARES)
    buckets = (FIRST_BUCKET, gradients - FIRST_BUCKET)
    return {"forward": forward, "backward": backward, "update": update, "buckets": buckets}


def two_cores(samples: int, steps: int, workers: int = 1, **more) -> Cluster:
    """The machine of the measured rows, whose disk is never waited for; `samples` is a worker's batch."""
    given = {
        "nodes": 1, "workers": workers, "readers": reader_count(workers, 0), "cores": 2, "samples": samples,
        "steps": steps, "segment_steps": 640 // samples, "group_rows": GROUP_ROWS, "segment_groups": 20,
        "row_bytes": ROW, "sample_bytes": CROP, "read": READ, "rest": TURN, "turn": TURN_COST, "hand_out": HAND_OUT,
        "put": PUT, "start": START, "start_reader": START_READER, "convert": NUMBERS, "on_cores": True,
        "inside_rate": EXCHANGE_RATE,
    }  # fmt: skip
    return Cluster(**(given | more))


def in_memory(samples: int, step: float, workers: int) -> Cluster:
    """Steps alone, as of `make bench-scaling`."""
    nothing = dict.fromkeys(("read", "rest", "turn", "hand_out", "put", "start", "start_reader", "convert"), 0.0)
    more = {"segment_steps": 400, "jitter": JITTER} | shared(step, GRADIENTS)
    return two_cores(samples, 400, workers, **(nothing | more))


def handing_out(workers: int, rest: float) -> Cluster:
    """Segments of nothing, as of `make bench-hand-out`; one window."""
    return two_cores(1, 128 * (WINDOW // workers), workers, segment_steps=128, segment_groups=1, row_bytes=0.0,
                     sample_bytes=0.0, read=0.0, convert=0.0, rest=rest)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Something that was measured, and how the simulation has it."""

    name: str
    measured: float
    unit: str
    cluster: Cluster
    simulated: Callable[[Outcome], float]
    given: bool = False  # one of the numbers was set by this very row


def rows() -> list[Row]:
    """What was measured on two cores."""
    return [*steps(), *reading(), *handed()]


def steps() -> list[Row]:
    """Steps on batches in memory."""
    listed = []
    for samples, one, two in ((10, 91.5, 111), (40, 359, 426)):
        for workers, measured, step in ((1, one, BARE[samples]), (2, two, AT_ONCE[samples] * RAY_SHARE)):
            name = f"a step, {samples} samples each: Ray Train's workers, {workers}"
            listed.append(Row(name, measured, "ms", in_memory(samples, step, workers), milliseconds))
    for samples, measured in ((5, 57), (10, 84)):
        name = f"a step, {samples} samples each: plain processes in bf16, 2"
        listed.append(Row(name, measured, "ms", in_memory(samples, AT_ONCE_BF16[samples], 2), milliseconds))
    return listed


def reading() -> list[Row]:
    """`make bench-ingest`, and the default run's training."""
    raw, png = (two_cores(20, 1600, read=read * BESIDE) for read in (READ, READ_PNG))
    parts = shared(AT_ONCE_BF16[10] * RAY_SHARE, GRADIENTS)
    run = two_cores(10, 3000, 2, jitter=JITTER, read=READ * BESIDE, **parts)
    return [
        Row("bench-ingest: raw levels", 6307, "samples/s", raw, lambda outcome: outcome.rate, given=True),
        Row("bench-ingest: PNG", 1817, "samples/s", png, lambda outcome: outcome.rate),
        Row("bench-ingest: first batch", 5.4, "s", raw, lambda outcome: outcome.first),
        Row("the default run", 219, "samples/s", run, lambda outcome: outcome.rate),
        Row("the default run: `wait_share`", 0.51, "%", run, lambda outcome: 100 * outcome.wait),
    ]


def handed() -> list[Row]:
    """`make bench-hand-out` as it was before the executor rested."""
    measured = ((2, 104), (8, 132))
    return [
        Row(f"bench-hand-out: {workers} workers", rate, "segments/s", handing_out(workers, 0.0), lambda o: o.rate / 128)
        for workers, rate in measured
    ]


def milliseconds(outcome: Outcome) -> float:
    """Of a step."""
    return 1000 * outcome.step
