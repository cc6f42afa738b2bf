"""What a training tells while it runs: rows kept with its checkpoints, and a line or a bar on the terminal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ray.util.queue import Empty, Queue
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@dataclass
class History:
    """The rows logged so far; saved inside each checkpoint, so a continued run has the whole of it."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write history.json into a checkpoint folder."""
        (folder / "history.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> History:
        """Read what `write` wrote."""
        return cls(**json.loads((folder / "history.json").read_text()))


class Progress:
    """Takes rows from the workers' queue: shows them, and hands each to `log(step, values)`.

    A bar with time left in a terminal, plain lines elsewhere.
    """

    def __init__(self, steps: int, log: Callable[[int, dict[str, float]], None]) -> None:
        self.queue = Queue(actor_options={"num_cpus": 0})
        self._steps, self._log = steps, log
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
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("train", total=self._steps, text="starting workers")
            first: tuple[float, int] | None = None
            while not (self._stop.is_set() and self.queue.empty()):
                try:
                    row = self.queue.get(timeout=0.5)
                except Empty:
                    continue
                step = int(row.pop("step"))
                self._log(step, row)
                first = first or (time.monotonic(), step)
                text = self._text(row, step, first)
                bar.update(task, completed=step, **({"text": text} if "loss" in row else {}))
                if not self._console.is_terminal:
                    print(f"train: step {step}/{self._steps}, {text}", flush=True)

    def _text(self, row: dict[str, float], step: int, first: tuple[float, int]) -> str:
        if "loss" not in row:
            return ", ".join(f"{name.removeprefix('val_psnr/')} {value:.2f}" for name, value in row.items()) + " dB"
        left = (time.monotonic() - first[0]) / (step - first[1]) * (self._steps - step) if step > first[1] else None
        return f"loss {row['loss']:.4f}, {row['samples_per_second']:.1f} samples/s" + (
            f", {left / 60:.1f} min left" if left is not None and not self._console.is_terminal else ""
        )
