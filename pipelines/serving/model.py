"""The model of a service: loaded once, and anew when the alias in the registry names another version."""

from __future__ import annotations

import copy
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.restoring.canary import check_canary
from pipelines.registry.fetch import current_version, fetch_checkpoint

REGISTERED = "models:/"
TODO = (
    "nothing, where the store is only away: it is asked again. Else set the alias to a version that `dvc repro "
    "register` made, or `python -m pipelines.promote --rollback`"
)


class Loaded:
    """One version of the model, with a copy for each thread: a batch's tasks are noted in the network itself."""

    def __init__(self, model: InstructIPT, version: str, threads: int) -> None:
        self.model, self.version = model, version
        self._copies: queue.SimpleQueue[InstructIPT] = queue.SimpleQueue()
        for _ in range(threads):
            self._copies.put(copy.deepcopy(model))

    @contextmanager
    def own(self) -> Iterator[InstructIPT]:
        """A copy that no other thread has inside the block."""
        model = self._copies.get()
        try:
            yield model
        finally:
            self._copies.put(model)


def load(
    uri: str,
    device: str,
    threads: int,
    precision: Precision = "auto",
    report: Callable[..., None] = lambda event, **values: None,
) -> Loaded:
    """The model of a checkpoint folder or, by `models:/NAME@ALIAS` or `models:/NAME/VERSION`, of the registry.

    It has restored the canary picture. `report` is told of a version that was registered without hashes. Raises
    ValueError for a folder or version that is no model or is not what was registered, CanaryError for one that spoils
    pictures, RuntimeError where the registry has none.
    """
    version = current_version(uri) if uri.startswith(REGISTERED) else uri
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="instruct-ipt-") as folder:
        registered = version.startswith(REGISTERED)
        source = fetch_checkpoint(version, Path(folder), notes.append) if registered else version
        model = InstructIPT.from_pretrained(source, device)
    check_canary(model, precision=precision)
    for note in notes:  # of one that is used: a damaged one is tried again and again
        report("model_unchecked", note=note)
    return Loaded(model, version, threads)


class Watcher:
    """Holds the newest model in `loaded`; asks the registry every few seconds whether the alias has moved.

    Who has taken `loaded` keeps that version for as long as it needs it. Whatever goes wrong (a registry that is away,
    a version that is damaged, changed, spoils the canary picture or is no model of ours) leaves the one that is there;
    `report` is told, with an event's name, details and what to do, and the alias is looked at again.
    """

    def __init__(
        self,
        uri: str,
        device: str,
        threads: int,
        seconds: float,
        report: Callable[..., None],
        precision: Precision = "auto",
    ) -> None:
        self._uri, self._device, self._threads, self._report = uri, device, threads, report
        self._precision: Precision = precision
        self.loaded = self._load(uri)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(seconds,), daemon=True)
        if uri.startswith(REGISTERED) and "@" in uri:
            self._thread.start()

    def end(self) -> None:
        """Watch no more; returns when a look that has begun is over."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _load(self, uri: str) -> Loaded:
        return load(uri, self._device, self._threads, self._precision, self._report)

    def _watch(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.look()

    def look(self) -> None:
        """Load what the alias names now, if that is another version."""
        wanted = self._uri
        try:
            wanted = current_version(self._uri)
            if wanted != self.loaded.version:
                self.loaded = self._load(wanted)
                self._report("model", version=self.loaded.version)
        except Exception as error:  # a version may be anybody's and raise anything, and the watch has to go on
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._report("model_failed", kept=self.loaded.version, wanted=wanted, error=reason, todo=TODO)
