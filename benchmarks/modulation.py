"""`make bench-modulation`: what task biases cost in time, beside the plain backbone and PEFT's LoRA.

All take turns on the same batch, so a change of the machine's speed meets all; ratios are medians over turns, with
quartiles.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from ipt.network.backbone import Backbone
from ipt.network.config import ModelConfig
from ipt.network.modulation import merge, modulate, modulated_layers, selected
from ipt.network.precision import has_bf16
from pipelines.common.params import Params, load_params
from pipelines.common.processes import usable_cores
from pipelines.training.choice import model_config, read_choice


def turns(calls: dict[str, Callable[[], object]], count: int) -> dict[str, np.ndarray]:
    """Seconds of each call, `count` turns after three to warm up."""
    seconds = {name: [] for name in calls}
    for _ in range(count + 3):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: np.array(values[3:]) for name, values in seconds.items()}


def report(title: str, seconds: dict[str, np.ndarray]) -> None:
    """A line each: the median, and its ratio to the first."""
    print(title)
    first = next(iter(seconds.values()))
    for name, values in seconds.items():
        low, middle, high = np.percentile(values / first, (25, 50, 75))
        print(f"  {name:34s}{np.median(values) * 1e3:8.1f} ms   x {middle:.3f} ({low:.3f} to {high:.3f})")


def step(network: nn.Module, degraded: Tensor, index: Tensor | None, bf16: bool) -> Callable[[], object]:
    """A forward and backward pass."""

    def call() -> None:
        with selected(network, index), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network(degraded).float().square().mean().backward()

    return call


def restoration(network: nn.Module, degraded: Tensor, index: Tensor | None = None, **options) -> Callable[[], object]:
    """A forward pass without gradients."""

    @torch.inference_mode()
    def call() -> None:
        with selected(network, index):
            network(degraded, **options)

    return call


def lora(backbone: nn.Module, tasks: tuple[str, ...], config: ModelConfig) -> nn.Module:
    """PEFT's LoRA on the same layers with an adapter for each task."""
    settings = LoraConfig(
        r=config.rank, target_modules=list(modulated_layers(modulate(copy.deepcopy(backbone), 1, 1, config.layers)))
    )
    network = get_peft_model(copy.deepcopy(backbone), settings, adapter_name=tasks[0])
    for task in tasks[1:]:
        network.add_adapter(task, settings)
    return network.eval()


def measure(params: Params, config: ModelConfig, count: int) -> None:
    """Print the two tables."""
    tasks, groups = config.tasks, params.train.groups_per_step
    plain = Backbone(config)
    modulated = modulate(copy.deepcopy(plain), len(tasks), config.rank, config.layers)
    degraded = torch.rand(groups * len(tasks), 3, params.ingest.crop, params.ingest.crop)
    index = torch.arange(len(tasks)).repeat_interleave(groups)
    print(
        f"batch {tuple(degraded.shape)}, {len(tasks)} tasks, rank {config.rank}, {len(config.layers)} layers, preset "
        f"{params.model.preset}, {torch.get_num_threads()} threads, {count} turns"
    )
    for bf16 in (False, True) if has_bf16(torch.device("cpu")) else (False,):
        calls = {"plain": step(plain, degraded, None, bf16), "mixed tasks": step(modulated, degraded, index, bf16)}
        report(f"training step, {'bf16' if bf16 else 'fp32'}", turns(calls, count))
    peft = lora(plain, tasks, config)
    each = [task for task in tasks for _ in range(groups)]
    calls = {
        "plain": restoration(plain, degraded),
        "merged, one task": restoration(merge(modulated, 0), degraded),
        "mixed tasks": restoration(modulated, degraded, index),
        "PEFT LoRA, one adapter": restoration(peft, degraded),
        "PEFT LoRA, mixed adapters": restoration(peft, degraded, adapter_names=each),
    }
    report("restoring, fp32", turns(calls, count))


def main() -> None:
    """Measure with the params and choice of this repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--threads", type=int, default=usable_cores())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    params = load_params()
    torch.manual_seed(params.seed)
    measure(params, model_config(params, read_choice()), given.turns)


if __name__ == "__main__":
    main()
