"""Steps of training: a bare torch loop, Ray Train around it, and two workers; the batches already in memory.

`make bench-scaling`: one thread a worker, batches of one size for each worker (so two workers see twice as many
samples a step). Two loops that know nothing of each other run beside them: what this machine gives two workers at
most. What reading the batches costs is measured apart, by `make bench-ingest`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, prepare_model

from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings, TrainingState, fit
from pipelines.cluster.connection import connected
from pipelines.common.params import load_params
from pipelines.training.choice import model_config, read_choice, training_settings

WARM = 10  # steps before the clock starts


def step_seconds(config: dict, wrap=lambda model: model) -> list[float]:
    """Seconds of each step of the training loop, batches from memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TaskNetwork(ModelConfig.from_dict(config["model"]))
    network = wrap(model)
    state = TrainingState(model, TrainingSettings(**config["settings"]))
    seconds: list[float] = []
    fit(
        state,
        itertools.cycle(config_batches(config)),
        network=network,
        on_step=lambda report: seconds.append(report.step_seconds),
    )
    return seconds[WARM:]


def config_batches(config: dict) -> list[Batch]:
    """Four batches of noise: what is in them changes nothing about time."""
    count, side = config["groups"] * config["tasks"], config["crop"]
    index = torch.arange(config["tasks"]).repeat_interleave(config["groups"])
    return [Batch(torch.rand(count, 3, side, side), torch.rand(count, 3, side, side), index) for _ in range(4)]


def worker(config: dict) -> None:
    """In a Ray Train worker: measure; the first one writes."""
    seconds = step_seconds(config, prepare_model)
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["out"]).write_text(json.dumps(seconds))


def with_ray(config: dict, workers: int, storage: str) -> list[float]:
    """The same steps in Ray Train workers."""
    out = Path(storage) / "measured.json"
    TorchTrainer(
        worker,
        train_loop_config=config | {"out": str(out)},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(storage_path=storage, name=f"scaling-{time.time_ns()}"),
    ).fit()
    return json.loads(out.read_text())


def apart(config: dict) -> float:
    """Median seconds of a step of two bare loops at once, in processes of their own."""
    loop = ray.remote(step_seconds).options(num_cpus=1)
    return statistics.median(itertools.chain(*ray.get([loop.remote(config), loop.remote(config)])))


def measure(config: dict, turns: int, storage: str) -> dict[str, list[float]]:
    """Median seconds of a step of each way, by turn."""
    measured: dict[str, list[float]] = {"bare": [], "one": [], "two": [], "apart": []}
    for _ in range(turns):
        measured["bare"].append(statistics.median(step_seconds(config)))
        measured["one"].append(statistics.median(with_ray(config, 1, storage)))
        measured["two"].append(statistics.median(with_ray(config, 2, storage)))
        measured["apart"].append(apart(config))
    return measured


def spread(values: list[float], form: str) -> str:
    """Median and range."""
    middle, low, high = (format(value, form) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--groups", type=int, nargs="*", default=[2, 8], help="of a worker's batch")
    given = parser.parse_args()
    params = load_params()
    with tempfile.TemporaryDirectory(dir=".") as storage, connected():
        for groups in given.groups:
            config = {
                "model": model_config(params, read_choice()).to_dict(),
                "settings": dataclasses.asdict(training_settings(params, given.steps, bf16=False)),
                "groups": groups,
                "tasks": len(params.tasks),
                "crop": params.ingest.crop,
            }
            measured = measure(config, given.turns, str(Path(storage).resolve()))
            print(f"{groups * len(params.tasks)} samples a worker and step")
            for name, seconds in measured.items():
                print(f"  {name:5} {spread([1000 * each for each in seconds], '.1f')} ms a step")
            bare, one, two, both = measured.values()
            overhead = [a / b - 1 for a, b in zip(one, bare, strict=True)]
            scaling = [2 * a / b for a, b in zip(one, two, strict=True)]
            most = [2 * a / b for a, b in zip(bare, both, strict=True)]
            print(f"  Ray Train over the bare loop: {spread(overhead, '+.1%')}")
            print(f"  samples/s of two workers over one: {spread(scaling, '.2f')}")
            print(f"  of two loops apart over one: {spread(most, '.2f')}", flush=True)


if __name__ == "__main__":
    main()
