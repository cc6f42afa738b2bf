"""The model of a service: loaded once, and anew when the alias in the registry names another version."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ipt.model import InstructIPT
from pipelines.registry.fetch import current_version

REGISTERED = "models:/"
CANNOT_LOAD = (ValueError, RuntimeError, OSError)  # the store is away, the version is damaged


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


def load(uri: str, device: str, threads: int) -> Loaded:
    """The model of a checkpoint folder or, by `models:/NAME@ALIAS` or `models:/NAME/VERSION`, of the registry.

    Raises ValueError for a folder or version that is no model, RuntimeError where the registry has none.
    """
    version = current_version(uri) if uri.startswith(REGISTERED) else uri
    return Loaded(InstructIPT.from_pretrained(version, device), version, threads)


class Watcher:
    """Holds the newest model in `loaded`; asks the registry every few seconds whether the alias has moved.

    Who has taken `loaded` keeps that version for as long as it needs it. A registry that is away or a version that
    cannot be loaded leaves the one that is there; `report` is told, with an event's name and details.
    """

    def __init__(self, uri: str, device: str, threads: int, seconds: float, report: Callable[..., None]) -> None:
        self._uri, self._device, self._threads, self._report = uri, device, threads, report
        self.loaded = load(uri, device, threads)
        if uri.startswith(REGISTERED) and "@" in uri:
            threading.Thread(target=self._watch, args=(seconds,), daemon=True).start()

    def _watch(self, seconds: float) -> None:
        pause = threading.Event()
        while not pause.wait(seconds):
            self.look()

    def look(self) -> None:
        """Load what the alias names now, if that is another version."""
        try:
            if current_version(self._uri) != self.loaded.version:
                self.loaded = load(self._uri, self._device, self._threads)
                self._report("model", version=self.loaded.version)
        except CANNOT_LOAD as error:
            self._report("model_failed", kept=self.loaded.version, error=" ".join(str(error).split()))
