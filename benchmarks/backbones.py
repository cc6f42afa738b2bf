"""`make bench-backbones`: which token mixer at which level? The default preset's candidates, trained alike.

Task biases of the chosen rank on the matching layers, equal steps and data; PSNR on held-out tiles, cost in GMAC, and
seconds of a training step and of restoring a megapixel.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ablation import RESULTS, Setting, held_out_psnr, kept_or_measured
from ipt.biases.sensitivity import ByTask, fit_all
from ipt.network.backbone import Backbone
from ipt.network.config import ModelConfig
from ipt.network.modulation import merge, modulate
from pipelines.common.params import load_params
from pipelines.common.processes import usable_cores
from pipelines.training.choice import model_config, read_choice

LAYERS = ("stem", "head", "encoder.*.expand", "encoder.*.project", "decoder.*.expand", "decoder.*.project",
          "encoder.*.query_key_value", "decoder.*.query_key_value")  # fmt: skip
SIDE = 256  # pixels, for cost and speed


def candidates(config: ModelConfig) -> dict[str, ModelConfig]:
    """By name: from gated convolutions everywhere (NAFNet) to attention everywhere (Restormer)."""
    levels = len(config.blocks)
    return {
        "gated convolutions everywhere": dataclasses.replace(config, attention_levels=0),
        "attention at the coarsest level": dataclasses.replace(config, attention_levels=1),
        "attention at the two coarsest": dataclasses.replace(config, attention_levels=2),
        "attention everywhere": dataclasses.replace(config, attention_levels=levels),
    }


def gmac(network: nn.Module) -> float:
    """Multiplications and additions for an image of SIDE x SIDE, in 10^9."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, 3, SIDE, SIDE))
    return counter.get_total_flops() / 2e9


def seconds_per_megapixel(network: nn.Module) -> float:
    """Median of seven, one thread, after a warm-up."""
    image, times = torch.rand(1, 3, SIDE, SIDE), []
    for _ in range(8):
        started = time.perf_counter()
        with torch.inference_mode():
            network(image)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:])) / (SIDE * SIDE / 1e6)


def measure(name: str, seed: int, steps: int) -> dict:
    """Train and score one candidate, or read its result; runs in a process of its own."""
    params, choice = load_params(), read_choice()
    config = candidates(model_config(params, choice))[name]

    def train() -> dict:
        """The measured candidate."""
        torch.set_num_threads(1)
        given = Setting(dataclasses.replace(params, seed=seed), choice, steps, seed)
        torch.manual_seed(seed)
        backbone = Backbone(config)
        layers = [pattern for pattern in LAYERS if "query" not in pattern or config.attention_levels > 1]
        started = time.perf_counter()
        network = fit_all(modulate(backbone, given.tasks, choice.rank, layers), given.batches(), given.settings())
        plain = merge(network, 0)
        return {
            "name": name, "seed": seed, "step_seconds": (time.perf_counter() - started) / steps,
            "psnr": held_out_psnr(ByTask(network), params), "gmac": gmac(plain),
            "parameters": sum(parameter.numel() for parameter in plain.parameters()),
            "seconds_per_megapixel": seconds_per_megapixel(plain),
        }  # fmt: skip

    path = RESULTS / f"backbone-{name.replace(' ', '-')}-seed{seed}-{steps}steps.json"
    return kept_or_measured(path, {"config": config.to_dict(), "steps": steps}, train)


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="trainings at a time")
    given = parser.parse_args()
    names = list(candidates(model_config(load_params(), read_choice())))
    jobs = [(name, seed, given.steps) for seed in given.seeds for name in names]
    with ProcessPoolExecutor(given.jobs) as pool:
        results = list(pool.map(measure, *zip(*jobs, strict=True)))
    tasks = list(results[0]["psnr"])
    print(f"| | GMAC | parameters | s / step | s / megapixel | {' | '.join(tasks)} | mean |")
    print(f"| --- | --- | --- | --- | --- | {' | '.join('---' for _ in tasks)} | --- |")
    for name in names:
        kept = [result for result in results if result["name"] == name]
        values = np.array([[result["psnr"][task] for task in tasks] for result in kept])
        spread = f" ± {np.ptp(values.mean(1)) / 2:.2f}" if len(kept) > 1 else ""
        cells = " | ".join(f"{value:.2f}" for value in values.mean(0))
        one = kept[0]
        step, megapixel = (np.mean([r[what] for r in kept]) for what in ("step_seconds", "seconds_per_megapixel"))
        costs = f"{one['gmac']:.2f} | {one['parameters'] / 1e3:.0f} k | {step:.3f} | {megapixel:.2f}"
        print(f"| {name} | {costs} | {cells} | {values.mean():.2f}{spread} |")


if __name__ == "__main__":
    main()
