"""What a training tells while it runs: rows kept with its checkpoints, and a line or a bar on the terminal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@dataclass(frozen=True)
class Life:
    """One start of a run's workers."""

    step: int  # that it began after
    time: float  # of its first batch, in seconds since 1970
    workers: int


@dataclass
class History:
    """The rows logged so far; saved inside each checkpoint, so a continued run has the whole of it."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    checkpoints: list[dict[str, float]] = field(default_factory=list)  # step, time in seconds since 1970

    def write(self, folder: Path) -> None:
        """Write history.json into a checkpoint folder."""
        (folder / "history.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> History:
        """Read what `write` wrote."""
        return cls(**json.loads((folder / "history.json").read_text()))


def faults(lives: list[Life], history: History) -> dict[str, float]:
    """What a run's faults cost: restarts, seconds lost, and the share of its time that was not (goodput).

    Lost is the time from the checkpoint that a life goes on from (or the run's first batch, where there was none) to
    its first batch: work done twice, starting again, and waiting for whoever starts it again. Lives that go on from
    the same checkpoint count once, up to the first batch of the last of them. The times are of the clock of the first
    worker's machine, which may be another one in the next life: what comes out below nothing counts as nothing.
    """
    written = {each["step"]: each["time"] for each in history.checkpoints}
    first, last = lives[0].time, max([*written.values(), lives[-1].time])
    begun = {life.step: life.time for life in lives[1:]}  # the last life from each checkpoint
    lost = sum(max(time - written.get(step, first), 0) for step, time in begun.items())
    return {
        "restarts": len(lives) - 1,
        "seconds_lost": round(lost, 1),
        "goodput": round(max(1 - lost / (last - first), 0), 4) if last > first else 1.0,
    }


class Progress:
    """Takes rows and words from the workers' queue: shows them, and hands each row to `log(step, values)`.

    A bar with time left in a terminal, plain lines elsewhere.
    """

    def __init__(self, stage: str, steps: int, log: Callable[[int, dict[str, float]], None]) -> None:
        # On the driver's node: what dies with another must not take it away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._stage, self._steps, self._log = stage, steps, log
        self._console = Console()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.queue.shutdown(force=True)

    def _run(self) -> None:
        columns = (
            TextColumn(self._stage),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(self._stage, total=self._steps, text="starting workers")
            first: tuple[float, int] | None = None
            while not (self._stop.is_set() and self.queue.empty()):
                try:
                    row = self.queue.get(timeout=0.5)
                except Empty:
                    continue
                if "tell" in row:
                    self._console.print(f"{self._stage}: {row['tell']}", markup=False, highlight=False, soft_wrap=True)
                    continue
                step = int(row.pop("step"))
                self._log(step, row)
                first = first or (time.monotonic(), step)
                text = self._text(row, step, first)
                fields: dict[str, Any] = {"text": text} if "loss" in row else {}
                bar.update(task, completed=step, **fields)
                if not self._console.is_terminal:
                    print(f"{self._stage}: step {step}/{self._steps}, {text}", flush=True)

    def _text(self, row: dict[str, float], step: int, first: tuple[float, int]) -> str:
        if "workers" in row:
            return f"workers: {row['workers']}, restarts so far: {row['restarts']}"
        if "loss" not in row:
            return ", ".join(f"{name.removeprefix('val_psnr/')} {value:.2f}" for name, value in row.items()) + " dB"
        left = (time.monotonic() - first[0]) / (step - first[1]) * (self._steps - step) if step > first[1] else None
        return f"loss {row['loss']:.4f}, {row['samples_per_second']:.1f} samples/s" + (
            f", {left / 60:.1f} min left" if left is not None and not self._console.is_terminal else ""
        )
