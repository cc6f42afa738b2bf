"""`make bench`: seconds of a mixed-task training step beside the same step of the plain backbone.

The two take turns, so a change of the machine's speed meets both; the ratio is of paired steps.
"""

from __future__ import annotations

import argparse
import copy
import os
import time

import numpy as np
import torch
from torch import nn

from ipt.backbone import Backbone
from ipt.modulation import modulate, selected
from pipelines.choice import model_config, read_choice
from pipelines.params import load_params


def step_seconds(network: nn.Module, degraded: torch.Tensor, index: torch.Tensor | None) -> float:
    """Time of one forward and backward pass."""
    started = time.perf_counter()
    with selected(network, index):
        network(degraded).square().mean().backward()
    return time.perf_counter() - started


def main() -> None:
    """Print the median step of both and the median and quartiles of their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps
    params = load_params()
    torch.manual_seed(params.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = tuple(params.tasks)
    config = model_config(params, read_choice())
    plain = Backbone(config)
    modulated = modulate(copy.deepcopy(plain), len(tasks), config.rank, config.layers)
    degraded = torch.rand(params.train.groups_per_step * len(tasks), 3, params.ingest.crop, params.ingest.crop)
    index = torch.arange(len(tasks)).repeat_interleave(params.train.groups_per_step)
    pairs = np.array(
        [(step_seconds(modulated, degraded, index), step_seconds(plain, degraded, None)) for _ in range(steps + 3)]
    )[3:]
    low, middle, high = np.percentile(pairs[:, 0] / pairs[:, 1], (25, 50, 75))
    print(
        f"batch {tuple(degraded.shape)}, {len(tasks)} tasks, rank {config.rank}, preset {params.model.preset}, "
        f"{torch.get_num_threads()} threads, {steps} pairs of steps"
    )
    print(
        f"plain {np.median(pairs[:, 1]):.3f} s, mixed-task {np.median(pairs[:, 0]):.3f} s, "
        f"ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    main()
