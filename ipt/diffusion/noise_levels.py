"""Noise levels of a diffusion schedule, and intervals of them.

Timestep t has the log signal-to-noise ratio L(t) = log(abar_t / (1 - abar_t)), abar_t as in a scheduler's
`alphas_cumprod` (Ho et al. 2020). Its timesteps are cut into K intervals, of equal length in L or at given places
(`ipt/diffusion/cuts.py`); interval 0 is the cleanest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

SCHEDULE = "alphas_cumprod"


def log_snr(alphas_cumprod: Tensor) -> Tensor:
    """log(abar / (1 - abar)) of each timestep, in double precision."""
    return torch.logit(alphas_cumprod.double())


def noise_intervals(alphas_cumprod: Tensor, intervals: int | Sequence[int]) -> Tensor:
    """The interval of each timestep, (T,) integers from 0, the cleanest.

    `intervals` is how many of equal length in log-SNR there are, or a list of the first timestep of each but the first.
    Timesteps without any signal or noise (infinite log-SNR) belong to the interval at their end. Raises ValueError for
    a schedule that rises, fewer than 1 interval, more than timesteps, boundaries that do not rise between 0 and T, or
    an interval into which no timestep falls.
    """
    steps = len(alphas_cumprod)
    if (alphas_cumprod.diff() > 0).any():
        raise ValueError(f"noise levels: expected a schedule whose {SCHEDULE} falls, got one that rises")
    if not isinstance(intervals, int):
        if any(first >= then for first, then in pairwise((0, *intervals, steps))):
            raise ValueError(
                f"noise levels: expected first timesteps that rise from 1 to {steps - 1}, got {list(intervals)}"
            )
        return torch.bucketize(torch.arange(steps), torch.tensor(intervals, dtype=torch.long), right=True)
    if not 1 <= intervals <= steps:
        raise ValueError(f"noise levels: expected 1 to {steps} intervals, one a timestep at most, got {intervals}")
    levels = log_snr(alphas_cumprod)
    finite = levels[levels.isfinite()]
    if not len(finite):
        raise ValueError("noise levels: expected a schedule with signal and noise, got none of its timesteps with both")
    edges = torch.linspace(-float(finite.max()), -float(finite.min()), intervals + 1, dtype=torch.float64)[1:-1]
    index = torch.bucketize(-levels, edges, right=True)
    if empty := sorted(set(range(intervals)) - set(index.tolist())):
        raise ValueError(
            f"noise levels: none of {steps} timesteps is in interval {empty[0]} of {intervals}; ask for fewer intervals"
        )
    return index


def boundaries(interval_of_timestep: Tensor) -> list[int]:
    """The first timestep of each interval but the first: what `noise_intervals` makes the same table of."""
    return ((interval_of_timestep.diff() > 0).nonzero()[:, 0] + 1).tolist()


def schedule_of(scheduler: Any) -> Tensor:
    """`alphas_cumprod` of a scheduler, (T,) in double precision; a ValueError for one without."""
    schedule = getattr(scheduler, SCHEDULE, None)
    if schedule is None:
        raise ValueError(f"scheduler: expected one with {SCHEDULE} such as DDPM's, got {type(scheduler).__name__}")
    return schedule.detach().cpu().double()


def prediction_type(scheduler: Any) -> str:
    """What the denoiser of a scheduler predicts: epsilon, v_prediction or sample; a ValueError for another."""
    kind = getattr(scheduler.config, "prediction_type", None)
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(f"scheduler: expected prediction type epsilon, v_prediction or sample, got {kind!r}")
    return kind


def check_scheduler(scheduler: Any, kind: str, schedule: Tensor) -> None:
    """Raise ValueError for a scheduler that predicts another thing than `kind` or has another `schedule`."""
    if (other := prediction_type(scheduler)) != kind:
        raise ValueError(f"scheduler: expected prediction type {kind}, for which the biases were trained, got {other}")
    given = schedule_of(scheduler)
    if given.shape != schedule.shape or not torch.allclose(given, schedule, atol=1e-6):
        raise ValueError(
            f"scheduler: expected the {len(schedule)} noise levels that the biases were trained for, got {len(given)} "
            "others; make it with `from_config` of the trained one's config"
        )
