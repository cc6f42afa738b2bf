"""Segments of training data that Ray hands out per second, by number of workers: where a large cluster would wait.

`make bench-hand-out`: the stream of a training with 2, 8 and 64 workers, whose segments are tiny and cost nothing to
read, consumed by as many threads of one process. So what is measured is what Ray does for each segment on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ray

from pipelines.cluster.connection import connected
from pipelines.training.stream import WINDOW, Items, Schedule, Windows, schedule_windows

SEGMENTS = WINDOW  # of all workers together
STEPS = 128  # of a segment


def read(start: int, stop: int) -> Items:
    """Items that are nothing but their number."""
    return {"group": np.arange(start, stop)[:, None]}


def segments_per_second(workers: int) -> tuple[float, float]:
    """Seconds to the first items of all workers, and segments handed out per second after that."""
    steps = SEGMENTS // workers * STEPS
    schedule = Schedule(steps, items_per_step=workers, interval=steps, segment=STEPS, workers=workers)
    windows = schedule_windows(schedule, 0)
    made = ray.remote(Windows).options(num_cpus=0).remote(read, schedule, windows)
    started = time.perf_counter()

    def consume(rank: int) -> tuple[float, int]:
        shard = ray.get(made.shard.remote(0, rank))
        tables = iter(shard.iter_batches(batch_size=STEPS, batch_format="pyarrow", prefetch_batches=1))
        next(tables)
        return time.perf_counter(), sum(1 for _ in tables)

    with ThreadPoolExecutor(workers) as pool:
        consumed = list(pool.map(consume, range(workers)))
    first = max(begun for begun, _ in consumed)
    rate = sum(count for _, count in consumed) / (time.perf_counter() - first)
    ray.kill(made)
    return first - started, rate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64])
    given = parser.parse_args()
    with connected():
        for workers in given.workers:
            firsts, rates = zip(*(segments_per_second(workers) for _ in range(given.turns)), strict=True)
            print(
                f"{workers:3} workers: {statistics.median(rates):.0f} segments/s ({min(rates):.0f} to {max(rates):.0f})"
                f", all have begun after {statistics.median(firsts):.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
