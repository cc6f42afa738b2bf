"""A restoration told while it goes on: how far it is, in lines of JSON, then what became of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.restoring.memory import affordable_tile
from ipt.restoring.restore import Plan, restore_tasks
from ipt.restoring.tiles import spans

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

PROGRESS = "application/vnd.instruct-ipt.progress"
LOOKS = 0.1  # seconds between two looks at how far a restoration is


class AbandonedError(Exception):
    """Nobody waits for this picture any more."""


@dataclass(eq=False, kw_only=True)
class Steps:
    """How far a restoration is; `tile` of `tiles` is at work from 1 on, both are 0 before that."""

    plan: Plan | None = None
    tile: int = 0
    tiles: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise AbandonedError where nobody waits any more."""
        if self.cancelled.is_set():
            raise AbandonedError

    def begin_tile(self) -> None:
        """Count a tile, before its work."""
        self.check()
        self.tile += 1

    def restore(
        self,
        model: InstructIPT,
        levels: np.ndarray,
        plan: Plan,
        *,
        strength: float,
        precision: Precision,
        memory: int | None = None,
    ) -> np.ndarray:
        """`restore_tasks` of a picture (H, W, 3) as planned, counted by tile; a tile takes at most `memory` bytes.

        Raises what `check` raises, ahead of a tile.
        """
        reach = model.backbone.reach * len(plan.tasks)
        side = affordable_tile(model.config, reach, next(model.parameters()).device, memory)
        rows, columns = (len(spans(length, side, reach, model.config.size_multiple)) for length in levels.shape[:2])
        self.tiles, self.plan = rows * columns, plan
        return restore_tasks(
            model,
            levels,
            plan.tasks,
            strength=strength,
            tile=side,
            precision=precision,
            before_tile=self.begin_tile,
        )


def how_far(steps: Steps | None, ahead: int) -> dict[str, Any]:
    """What is told of a restoration: its tile or, before the first one, how many come before it."""
    if steps is None or not steps.tile:
        return {"waiting": ahead}
    return {"tile": steps.tile, "tiles": steps.tiles, "tasks": steps.plan.tasks if steps.plan else ()}


def line(values: dict[str, Any]) -> bytes:
    """A line of an answer of PROGRESS."""
    return json.dumps(values).encode() + b"\n"


async def lines_until(done: asyncio.Future[Any], look: Callable[[], dict[str, Any] | None]) -> AsyncGenerator[bytes]:
    """What `look` tells, as lines, whenever it has changed, until `done`, or until it tells nothing any more."""
    last: dict[str, Any] = {}
    while not done.done() and (now := look()) is not None:
        if now != last:
            yield line(now)
        last = now
        await asyncio.wait({done}, timeout=LOOKS)


def progress_answer(pieces: AsyncGenerator[bytes], at_end: Callable[[], object] = lambda: None) -> Response:
    """An answer of PROGRESS; at its end, also by a receiver that goes away, `pieces` is closed and `at_end` called."""
    from starlette.responses import StreamingResponse

    class Answer(StreamingResponse):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                at_end()
                await pieces.aclose()

    return Answer(pieces, media_type=PROGRESS)


def last_pieces(told: dict[str, Any], files: dict[str, tuple[bytes, str]]) -> list[bytes]:
    """The end of an answer of PROGRESS: what was done, and files with their media types."""
    listed = [{"name": name, "type": kind, "bytes": len(content)} for name, (content, kind) in files.items()]
    return [line({"done": told | {"files": listed}}), *(content for content, _ in files.values())]
