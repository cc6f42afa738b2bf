"""Groups of cut samples to batches that hold every task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from ipt.training.batch import Batch
from pipelines.common.params import Params
from pipelines.training.groups import Mix, read_groups

Groups = dict[str, np.ndarray]  # as `read_groups` gives them


def training_batches(steps: Iterable[Groups], index: Sequence[int]) -> Iterator[Batch]:
    """The groups of each step as a batch, sorted by task; `index` is the task of each sample of a group."""
    for groups in steps:
        tasks = np.tile(index, len(groups["degraded"]))
        order = np.argsort(tasks, kind="stable")  # the order of groups stays inside each task
        degraded, clean = (_images(groups[name], order) for name in ("degraded", "clean"))
        yield Batch(degraded, clean, torch.from_numpy(tasks[order]))


def _images(levels: np.ndarray, order: np.ndarray) -> torch.Tensor:
    """uint8 (groups, samples, 3, H, W) to float32 (groups * samples, 3, H, W) in [0, 1], in this order."""
    ordered = levels.reshape(-1, *levels.shape[2:])[order]  # a copy: torch takes no read-only memory, such as Ray's
    return torch.from_numpy(ordered).float().div_(255)


def group_batches(params: Params, mix: Mix, per_step: int, first_step: int, steps: int) -> Iterator[Batch]:
    """The stream's batches of `steps` steps of `per_step` groups from `first_step` on, for one process that trains
    alone.
    """
    first, last = first_step * per_step, (first_step + steps) * per_step
    segment = max(params.ray.groups_per_read // per_step, 1) * per_step

    def groups() -> Iterator[Groups]:
        for start in range(first, last, segment):
            read = read_groups(mix, params.ingest, start, min(start + segment, last))
            for step in range(0, len(read["degraded"]), per_step):
                yield {name: values[step : step + per_step] for name, values in read.items()}

    return training_batches(groups(), mix.index)
