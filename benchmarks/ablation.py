"""`make ablation`: does the modulation earn its place? Variants trained alike, scored on held-out tiles.

Equal steps, data and backbone; each result is kept in build/ablation, so an interrupted call goes on where it was. The
table goes into docs/method.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.marks import write_between
from benchmarks.variants import Conditioned, Film, OneEach, Prompt
from ipt.biases.sensitivity import ByTask, fit_all, fit_biases
from ipt.network.backbone import Backbone
from ipt.network.modulation import modulate, modulated_layers
from ipt.training.batch import Batch
from ipt.training.fit import TrainingState, fit
from pipelines.common.files import write_json
from pipelines.common.params import Params, load_params
from pipelines.common.paths import SHARDS
from pipelines.common.processes import usable_cores
from pipelines.data.metrics import psnr
from pipelines.data.pairs import load_pairs
from pipelines.training.batches import group_batches
from pipelines.training.choice import Choice, model_config, read_choice, training_settings
from pipelines.training.groups import Mix, open_mix

RESULTS, REPORT = Path("build/ablation"), Path("docs/method.md")
BEGIN = "<!-- made by `make ablation` -->\n"
ROWS = {
    "shared": "one network, no task input",
    "film": "feature modulation: scale and shift after each block",
    "prompt": "learnt features of the task added in the decoder",
    "rank 2": "task biases on the chosen layers",
    "rank 4": "",
    "rank 8": "",
    "rank 16": "",
    "full rank": "",
    "all layers": "at the chosen rank",
    "random layers": "as many as chosen, at the chosen rank",
    "two stages": "backbone for half of the steps, then biases alone, at the chosen rank",
    "single": "a network for each task, each with as many steps and samples a step as the others for all tasks",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all rows have in common."""

    params: Params
    choice: Choice
    steps: int
    seed: int

    @property
    def tasks(self) -> int:
        """How many."""
        return len(self.params.tasks)

    def mix(self) -> Mix:
        """All tasks' training shards."""
        return open_mix(SHARDS, self.params.tasks, "train", self.seed)

    def batches(self, first: int = 0, steps: int | None = None) -> Iterator[Batch]:
        """The mixed-task batches of the steps from `first` on."""
        return group_batches(self.params, self.mix(), self.params.analyze.groups_per_step, first, steps or self.steps)

    def backbone(self) -> Backbone:
        """The same at every call."""
        torch.manual_seed(self.seed)
        return Backbone(model_config(self.params, self.choice))

    def settings(self, steps: int | None = None):
        """Those of params.yaml, for that many steps."""
        return training_settings(self.params, steps or self.steps, bf16=False)


def train_row(row: str, given: Setting) -> nn.Module:
    """The trained variant, called with images and tasks."""
    rank, layers = given.choice.rank, given.choice.layers
    if row == "shared":
        return ByTask(fit_all(given.backbone(), given.batches(), given.settings()))
    if row in ("film", "prompt"):
        backbone = given.backbone()
        stages = [*backbone.encoder, backbone.middle, *backbone.decoder] if row == "film" else backbone.decoder
        return fit_module(Conditioned(backbone, stages, Film if row == "film" else Prompt, given.tasks), given)
    if row == "two stages":
        half = given.steps // 2
        common = fit_all(given.backbone(), given.batches(0, half), given.settings(half))
        network = modulate(common, given.tasks, rank, layers)
        return ByTask(fit_biases(network, given.batches(half, half), given.settings(half)))
    if row == "single":
        return OneEach([train_single(task, given) for task in range(given.tasks)])
    if row == "all layers":
        layers = given.params.analyze.candidates
    elif row == "random layers":
        candidates = modulate(given.backbone(), 1, 1, given.params.analyze.candidates)
        layers = random.Random(given.seed).sample(list(modulated_layers(candidates)), len(layers))
    elif row == "full rank":
        rank = None
    else:
        rank = int(row.removeprefix("rank "))
    return ByTask(fit_all(modulate(given.backbone(), given.tasks, rank, layers), given.batches(), given.settings()))


def fit_module(module: nn.Module, given: Setting) -> nn.Module:
    """Train a module that heeds the tasks by itself; the averaged one."""
    state = TrainingState(module, given.settings())
    fit(state, given.batches())
    return state.ema.module.eval()


def train_single(task: int, given: Setting) -> nn.Module:
    """A plain network for one task alone."""
    name = list(given.params.tasks)[task]
    share = sum(each.share for each in given.params.tasks.values())
    params = dataclasses.replace(given.params, tasks={name: dataclasses.replace(given.params.tasks[name], share=share)})
    alone = dataclasses.replace(given, params=params)
    settings = dataclasses.replace(alone.settings(), task_weights=(1.0,))
    return fit_all(given.backbone(), alone.batches(), settings)


def held_out_psnr(module: nn.Module, params: Params) -> dict[str, float]:
    """Mean PSNR by task, 8-bit rounded."""
    return {
        task: mean_psnr(module, number, load_pairs(SHARDS / task / "val", params.evaluate.tiles))
        for number, task in enumerate(params.tasks)
    }


@torch.inference_mode()
def mean_psnr(module: nn.Module, task: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of what a module that is called with images and tasks makes of the degraded ones of (degraded, clean) pairs."""
    values = []
    for degraded, clean in pairs:
        image = torch.from_numpy(degraded).permute(2, 0, 1)[None].contiguous()
        restored = module(image, torch.tensor([task]))[0].permute(1, 2, 0).numpy()
        values.append(psnr(restored, clean))
    return float(np.mean(values))


def kept_or_measured(path: Path, given: dict, call: Callable[[], dict]) -> dict:
    """The result in `path` if it was made of the same `given`; else that of `call`, which is put there."""
    if path.is_file() and (kept := json.loads(path.read_text()))["given"] == given:
        return kept
    result = {"given": given} | call()
    write_json(path, result)
    print(f"{path}: {np.mean(list(result['psnr'].values())):.2f} dB", flush=True)
    return result


def measure(row: str, seed: int, steps: int) -> dict:
    """Train and score one row, or read its result; runs in a process of its own."""
    params, choice = load_params(), read_choice()
    given = Setting(dataclasses.replace(params, seed=seed), choice, steps, seed)

    def train() -> dict:
        """The measured row."""
        torch.set_num_threads(1)
        started = time.monotonic()
        module = train_row(row, given)
        sizes = [sum(p.numel() for p in network.parameters()) for network in (module, given.backbone())]
        return {
            "row": row, "seed": seed, "psnr": held_out_psnr(module, params),
            "extra_parameters": sizes[0] / sizes[1] - 1, "seconds": time.monotonic() - started,
        }  # fmt: skip

    path = RESULTS / f"{row.replace(' ', '-')}-seed{seed}-{steps}steps.json"
    made_of = {"config": model_config(params, choice).to_dict(), "steps": steps}
    return kept_or_measured(path, made_of, train)


def all_kept(given: dict) -> list[dict]:
    """The results of all calls that were made of the same `given`."""
    kept = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [result for result in kept if result["given"] == given and "row" in result]


def table(results: list[dict]) -> str:
    """Markdown: means over seeds, half the range of the average over tasks, and that average at the first seed.

    Rows with fewer seeds than others are to be compared at the first, which all have.
    """
    tasks = list(results[0]["psnr"])
    first = min(result["seed"] for result in results)
    lines = [
        f"| | extra parameters | {' | '.join(tasks)} | mean | seeds | mean, seed {first} |",
        f"| --- | --- | {' | '.join('---' for _ in tasks)} | --- | --- | --- |",
    ]
    for row, kept in itertools.groupby(sorted(results, key=lambda r: list(ROWS).index(r["row"])), lambda r: r["row"]):
        kept = sorted(kept, key=lambda result: result["seed"])
        values = np.array([[result["psnr"][task] for task in tasks] for result in kept])
        means = values.mean(1)
        spread = f" ± {np.ptp(means) / 2:.2f}" if len(kept) > 1 else ""
        cells = " | ".join(f"{value:.2f}" for value in values.mean(0))
        label = f"{row} ({ROWS[row]})" if ROWS[row] else row
        alone = f"{means[0]:.2f}" if kept[0]["seed"] == first else ""
        mean = f"{means.mean():.2f}{spread} | {len(kept)} | {alone}"
        lines.append(f"| {label} | {kept[0]['extra_parameters']:.0%} | {cells} | {mean} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is not yet measured and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="trainings at a time")
    given = parser.parse_args()
    jobs = [(row, seed, given.steps) for seed in given.seeds for row in given.rows]
    with ProcessPoolExecutor(given.jobs) as pool:
        measured = list(pool.map(measure, *zip(*jobs, strict=True)))
    written = table(all_kept(measured[0]["given"]))
    write_between(REPORT, BEGIN, written)
    print(written)


if __name__ == "__main__":
    main()
