"""What a service tells of itself: Prometheus metrics and lines of JSON, neither with anything of a picture."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCHES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Numbers of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter("instruct_ipt_requests", "Answers of /restore.", ["status"], registry=own)
        self.seconds = Histogram(
            "instruct_ipt_seconds", "From headers to answer, of restored pictures.", buckets=_SECONDS, registry=own
        )
        self.batch = Histogram(
            "instruct_ipt_batch", "Pictures that shared a pass of the network.", buckets=_BATCHES, registry=own
        )
        self.tasks = Counter("instruct_ipt_tasks", "Tasks done.", ["task"], registry=own)
        self.pixels = Counter("instruct_ipt_pixels", "Pixels restored.", registry=own)
        self.waiting = Gauge("instruct_ipt_waiting", "Requests inside, waiting or at work.", registry=own)
        self.senders = Gauge("instruct_ipt_senders", "Bodies on their way.", registry=own)
        self.model = Gauge("instruct_ipt_model", "1 for the version that is served.", ["version"], registry=own)
        self.reloads = Counter("instruct_ipt_reloads", "Changes of the model.", ["result"], registry=own)
        ProcessCollector(registry=own)

    def count(self, seconds: float, restored: np.ndarray, tasks: Sequence[str], batch: int) -> None:
        """One picture (H, W, 3) restored."""
        self.seconds.observe(seconds)
        self.batch.observe(batch)
        self.pixels.inc(restored.shape[0] * restored.shape[1])
        for task in tasks:
            self.tasks.labels(task).inc()

    def to_text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)


class Log:
    """Lines of JSON that wait to be fetched, in order; the oldest go where nobody fetches them. Or it prints them."""

    def __init__(self, most: int = 10_000, prints: bool = False) -> None:
        self._prints = prints
        self._lines: queue.Queue[str] = queue.Queue(most)
        self._adding = threading.Lock()

    def write(self, event: str, **values: object) -> None:
        """Add a line with the time, the event and `values` that are not None."""
        named = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | values
        line = json.dumps({name: value for name, value in named.items() if value is not None})
        if self._prints:
            print(line, flush=True)
            return
        with self._adding:
            if self._lines.full():
                self._lines.get_nowait()
            self._lines.put_nowait(line)

    def take(self) -> list[str]:
        """All lines since the last call."""
        return [self._lines.get_nowait() for _ in range(self._lines.qsize())]
