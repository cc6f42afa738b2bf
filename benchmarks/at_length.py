"""`make bench-length`: what do task biases give where training is long? One network with them and one without.

    python -m benchmarks.at_length --shards FOLDER --state FOLDER [--steps N] [--data FOLDER]

Equal steps, data and backbone, the preset, layers and rank of this checkout; each row trains in a process of its own,
on one thread. The state of a row is kept below `--state`: the same call goes on from it, also after days. Real pairs
are measured where `--data` has folders of them. The table goes into docs/method.md when both rows are done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.ablation import mean_psnr
from benchmarks.marks import write_between
from benchmarks.peers import some_real_pairs
from ipt.biases.sensitivity import ByTask
from ipt.network.backbone import Backbone
from ipt.network.modulation import modulate
from ipt.network.precision import uses_bf16
from ipt.training.fit import StepReport, TrainingState, fit
from pipelines.common.files import replace_folder, write_json
from pipelines.common.params import Params, load_params
from pipelines.data.metrics import psnr
from pipelines.data.pairs import load_pairs
from pipelines.training.batches import group_batches
from pipelines.training.choice import model_config, read_choice, training_settings
from pipelines.training.groups import open_mix

REPORT = Path("docs/method.md")
BEGIN = "<!-- made by `make bench-length` -->\n"
ROWS = {"shared": "one network, no task input", "biases": "task biases on the chosen layers"}
MOST = 20  # pictures of each set of real pairs

Pairs = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Job:
    """What a row is trained from, and where it is kept."""

    row: str
    shards: Path
    state: Path
    data: Path
    steps: int
    save_every: int

    def new_network(self, params: Params) -> ByTask:
        """The untrained network: the same backbone for both rows."""
        choice = read_choice()
        torch.manual_seed(params.seed)
        backbone: nn.Module = Backbone(model_config(params, choice))
        if self.row == "biases":
            backbone = modulate(backbone, len(params.tasks), choice.rank, choice.layers)
        return ByTask(backbone)


def train_row(job: Job) -> dict:
    """Train a row to its end, from where it was; its scores and its size. Runs in a process of its own."""
    torch.set_num_threads(1)
    params = load_params()
    settings = training_settings(params, job.steps, uses_bf16(params.train.precision, torch.device("cpu")))
    state, folder = TrainingState(job.new_network(params), settings), job.state / job.row
    if folder.is_dir():
        state.load(folder)
    mix = open_mix(job.shards, params.tasks, "train", params.seed)
    batches = group_batches(params, mix, params.train.groups_per_step, state.step, max(job.steps - state.step, 1))

    def keep(report: StepReport) -> None:
        if report.step % job.save_every == 0 or report.step == job.steps:
            with replace_folder(folder) as temporary:
                state.save(temporary)
            print(f"{job.row}: step {report.step} of {job.steps}, loss {report.loss:.5f}", flush=True)

    fit(state, batches, on_step=keep)
    size = sum(parameter.numel() for parameter in state.model.parameters())
    return {"row": job.row, "parameters": size, "psnr": measure(state.ema.module.eval(), params, job)}


def measure(module: nn.Module, params: Params, job: Job) -> dict[str, list[float]]:
    """By what is measured: mean PSNR (dB) of the degraded and of the restored images."""
    tasks = list(params.tasks)
    sets: dict[str, tuple[str, Pairs]] = {
        f"{task}, tiles": (task, load_pairs(job.shards / task / "val", params.evaluate.tiles)) for task in tasks
    }
    for pairs, some in some_real_pairs(params, job.data, MOST, "at length"):
        sets[pairs.name] = pairs.task, some
    return {name: before_and_after(module, tasks.index(task), images) for name, (task, images) in sets.items()}


def before_and_after(module: nn.Module, task: int, pairs: Pairs) -> list[float]:
    """Mean PSNR (dB) of the degraded images and of what `module` makes of them."""
    return [float(np.mean([psnr(degraded, clean) for degraded, clean in pairs])), mean_psnr(module, task, pairs)]


def table(results: list[dict], samples: int) -> str:
    """Markdown: a line for each set, and what the biases give on it."""
    shared, biases = (next(result for result in results if result["row"] == row) for row in ROWS)
    lines = [
        f"{samples:,} samples a row; {shared['parameters'] / 1e3:.0f} k numbers without biases, "
        f"{biases['parameters'] / 1e3:.0f} k with them.\n",
        "| | input | without biases | with biases | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (degraded, without) in shared["psnr"].items():
        restored = biases["psnr"][name][1]
        lines.append(f"| {name} | {degraded:.2f} | {without:.2f} | {restored:.2f} | {restored - without:+.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train both rows and write the table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.at_length", description=__doc__, formatter_class=raw)
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--state", type=Path, required=True, help="folder of the rows' states, outside the checkout")
    parser.add_argument("--data", type=Path, default=Path("data/real_pairs"))
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--save-every", type=int, default=250, help="steps")
    given = parser.parse_args()
    made_of = {"steps": given.steps, "choice": dataclasses.asdict(read_choice()), "shards": str(given.shards)}
    check_state(given.state, made_of)
    jobs = [Job(row, given.shards, given.state, given.data, given.steps, given.save_every) for row in ROWS]
    with ProcessPoolExecutor(len(jobs)) as pool:
        results = list(pool.map(train_row, jobs))
    write_json(given.state / "results.json", results)
    params = load_params()
    each = sum(task.share for task in params.tasks.values()) * params.train.groups_per_step
    written = table(results, given.steps * each)
    print(written)
    write_between(REPORT, BEGIN, written)


def check_state(folder: Path, made_of: dict) -> None:
    """Note what the state is made of; ValueError where it was begun with something else."""
    note = folder / "made_of.json"
    if note.is_file() and (kept := json.loads(note.read_text())) != json.loads(json.dumps(made_of)):
        raise ValueError(f"{note}: the state there was begun with {kept}, not with {made_of}; name another --state")
    write_json(note, made_of)


if __name__ == "__main__":
    main()
