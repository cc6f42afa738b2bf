"""What a service does with pictures that wait: those of one size and one task each go through the network together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ipt.model import InstructIPT
from ipt.network.precision import Precision
from ipt.page.progress import Steps
from ipt.restoring.memory import affordable_tile
from ipt.restoring.mixed import restore_mixed
from ipt.restoring.restore import Plan, plan_restoration
from pipelines.serving.model import Loaded

SMALL = 512  # pixels; a picture with no longer side waits for others to make a batch


@dataclasses.dataclass(eq=False)
class Job(Steps):
    """A picture (H, W, 3) uint8 or uint16, what is asked for, the model that will do it, and how far it is."""

    loaded: Loaded
    levels: np.ndarray
    task: str | None = None
    instruction: str | None = None
    strength: float = 1.0
    precision: Precision = "auto"
    memory: int | None = None  # bytes that its tiles, or the batch that it is in, may take

    def is_small(self) -> bool:
        """Whether it can go into a batch."""
        return max(self.levels.shape[:2]) <= SMALL


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A restored picture, why it was restored so, and how many went through the network together."""

    restored: np.ndarray
    plan: Plan
    batch: int


def restore_alone(model: InstructIPT, job: Job) -> Outcome:
    """Restore one picture of any size as the library does; AbandonedError ends it between two tiles."""
    return _restore_planned(model, job, _plan(model, job))


def restore_jobs(jobs: Sequence[Job]) -> list[Outcome | Exception]:
    """Restore small pictures of any tasks and sizes; for each its outcome, or what went wrong with it alone."""
    results: dict[Job, Outcome | Exception] = {}
    for loaded in {id(job.loaded): job.loaded for job in jobs}.values():
        with loaded.own() as model:
            results |= _restore_with(model, [job for job in jobs if job.loaded is loaded])
    return [results[job] for job in jobs]


def _restore_with(model: InstructIPT, jobs: Sequence[Job]) -> dict[Job, Outcome | Exception]:
    device = next(model.parameters()).device
    tile = affordable_tile(model.config, model.backbone.reach, device, jobs[0].memory)  # of one service: all the same
    results: dict[Job, Outcome | Exception] = {}
    plans = {job: _attempt(_plan, model, job) for job in jobs}
    together: dict[tuple, list[Job]] = {}
    for job, plan in plans.items():
        if isinstance(plan, Exception):
            results[job] = plan
        elif len(plan.tasks) == 1 and max(job.levels.shape) <= tile:
            together.setdefault((job.levels.shape, job.strength), []).append(job)
        else:  # no task, one after the other, or more than memory has room for
            results[job] = _attempt(_restore_planned, model, job, plan)
    for (shape, _), group in together.items():
        most = tile**2 // (shape[0] * shape[1])
        for start in range(0, len(group), most):
            results |= _restore_together(model, group[start : start + most], plans)
    return results


def _plan(model: InstructIPT, job: Job) -> Plan:
    job.check()
    return plan_restoration(model, job.levels, task=job.task, instruction=job.instruction)


def _restore_planned(model: InstructIPT, job: Job, plan: Plan) -> Outcome:
    restored = job.restore(model, job.levels, plan, strength=job.strength, precision=job.precision, memory=job.memory)
    return Outcome(restored, plan, 1)


def _restore_together(
    model: InstructIPT, jobs: Sequence[Job], plans: dict[Job, Plan]
) -> dict[Job, Outcome | Exception]:
    for job in jobs:
        job.plan, job.tile, job.tiles = plans[job], 1, 1
    levels, tasks = [job.levels for job in jobs], [plans[job].tasks[0] for job in jobs]
    restored = _attempt(restore_mixed, model, levels, tasks, strength=jobs[0].strength, precision=jobs[0].precision)
    if isinstance(restored, Exception):
        return dict.fromkeys(jobs, restored)
    return {
        job: image if isinstance(image, Exception) else Outcome(image, plans[job], len(jobs))
        for job, image in zip(jobs, restored, strict=True)
    }


def _attempt(function, *arguments, **named):
    try:
        return function(*arguments, **named)
    except Exception as error:  # it is told to the one who asked, the others go on
        return error
