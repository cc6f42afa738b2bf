"""Stage: which layers get task biases and of which rank, found by sensitivity and rank analysis.

A common backbone without tasks is trained for a short while, then full-rank biases on all candidates with the backbone
held. Where params.yaml pins both layers and rank, they are the choice and nothing is measured.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import ray
import torch
from torch import Tensor, nn

from ipt.biases.rank import affordable_rank, constant_rank, energy_by_rank, singular_spectra
from ipt.biases.sensitivity import choose_layers, fit_all, fit_biases, level_of, sensitivity
from ipt.files import replace_file
from ipt.network.backbone import Backbone
from ipt.network.modulation import modulate, modulated_layers, task_parameters
from ipt.network.precision import uses_bf16
from ipt.training.fit import StepReport
from pipelines.cluster.connection import cpus_per_worker
from pipelines.cluster.naming import published
from pipelines.cluster.spread import several_nodes, spread
from pipelines.cluster.storage import Storage
from pipelines.common.files import write_json
from pipelines.common.params import Params, load_params
from pipelines.common.paths import HEAT_MAP, METRICS, SENSITIVITY, SHARDS, SPECTRUM
from pipelines.common.processes import usable_cores
from pipelines.common.stage import run
from pipelines.data.pairs import spread_rows
from pipelines.data.row_groups import RowGroup
from pipelines.training.batches import group_batches
from pipelines.training.choice import Choice, model_config, training_settings, write_choice
from pipelines.training.groups import Mix, open_mix
from pipelines.training.psnr_meter import psnr_meter

SUMMARY = METRICS / "analyze.json"


@dataclass(frozen=True)
class Samples:
    """What is trained and measured on, wherever it lies: small, so that it travels to a worker."""

    mix: Mix
    measured: list[list[tuple[RowGroup, int]]]  # training tiles of each task: held-out ones judge what is made of this

    @classmethod
    def of(cls, params: Params, shards: Path, places: Mapping[str, str] | None = None) -> Samples:
        """Those of the shards, which are read in `places`, as `Storage.publish` says, where that is elsewhere."""
        return cls(
            open_mix(shards, params.tasks, "train", params.seed, places),
            [
                spread_rows(shards / task / "train", params.analyze.tiles, places[task] if places else None)
                for task in params.tasks
            ],
        )


def analyze(
    params: Params, samples: Samples, threads: int | None = None
) -> tuple[Choice, dict[str, list[float]], Tensor, dict]:
    """The choice, the sensitivity by layer, the energy that each rank keeps (T, R + 1), and a summary.

    `threads` of the CPU compute (None: as many as this process may use).
    """
    started = time.perf_counter()
    torch.set_num_threads(threads or usable_cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings, pinned = params.analyze, params.modulation
    all_layers = pinned.layers == "auto"  # else only the rank is asked for
    candidates = settings.candidates if pinned.layers == "auto" else pinned.layers
    common, network = train_full_rank(params, samples.mix, candidates, device)
    bf16 = uses_bf16(params.train.precision, device)
    measure = psnr_meter(samples.measured, device, bf16)
    scores = sensitivity(network, measure)
    layers = tuple(choose_layers(scores, settings.least, level_of) if all_layers else scores)
    spectra = singular_spectra(network)
    rank = (
        min(
            constant_rank(spectra, layers, settings.energy),
            affordable_rank(network, layers, settings.bias_share),
        )
        if pinned.rank == "auto"
        else pinned.rank
    )
    energy = energy_by_rank(spectra, layers)
    summary = summarise(common, network, measure, Choice(rank, layers), energy)
    return Choice(rank, layers), scores, energy, summary | {"seconds": round(time.perf_counter() - started, 1)}


def train_full_rank(
    params: Params, mix: Mix, candidates: tuple[str, ...], device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """A common backbone, and the same with full-rank biases on the candidates."""
    settings = params.analyze
    torch.manual_seed(params.seed)
    bf16 = uses_bf16(params.train.precision, device)
    common = fit_all(
        Backbone(model_config(params, Choice(1, candidates))).to(device),
        group_batches(params, mix, settings.groups_per_step, 0, settings.common_steps),
        training_settings(params, settings.common_steps, bf16),
        told("common backbone", settings.common_steps),
    )
    calm = training_settings(params, settings.bias_steps, bf16)
    network = fit_biases(
        modulate(copy.deepcopy(common), len(params.tasks), None, candidates),
        group_batches(params, mix, settings.groups_per_step, settings.common_steps, settings.bias_steps),
        dataclasses.replace(calm, bias_learning_rate=settings.learning_rate),
        told("full-rank biases", settings.bias_steps),
    )
    return common, network


def analyze_somewhere(params: Params) -> tuple[Choice, dict[str, list[float]], Tensor, dict]:
    """`analyze` here, or on one of the nodes of a cluster, with a GPU where there is one."""
    storage = Storage(params.ray.storage)
    with several_nodes(params.ray) as nodes:
        place = published if nodes else Storage.here
        samples = Samples.of(params, SHARDS, {task: place(storage, SHARDS / task) for task in params.tasks})
        if not nodes:
            return analyze(params, samples)
        cpus, gpus = cpus_per_worker(params.ray), min(int(ray.cluster_resources().get("GPU", 0)), 1)
        print(f"analyze: on one of the cluster's nodes, CPUs: {cpus}, GPUs: {gpus}", flush=True)
        worker = functools.partial(_analyze_there, params=params, threads=cpus)
        (result,) = spread(worker, [samples], num_cpus=cpus, num_gpus=gpus)
        return result


def _analyze_there(samples: Samples, params: Params, threads: int) -> tuple:
    return analyze(params, samples, threads)


def summarise(
    common: nn.Module, network: nn.Module, measure: Callable[[nn.Module], list[float]], choice: Choice, energy: Tensor
) -> dict:
    """The numbers of the choice: what it costs beside the backbone and how much of the biases' energy it keeps."""
    chosen = modulate(copy.deepcopy(common), energy.shape[0], choice.rank, choice.layers)
    return {
        "rank": choice.rank,
        "layers": len(choice.layers),
        "candidates": len(modulated_layers(network)),
        "energy_kept": round(float(energy[:, min(choice.rank, energy.shape[1] - 1)].min()), 4),
        "bias_share": round(count(task_parameters(chosen)) / count(common.parameters()), 4),
        "psnr_common": round(float(np.mean(measure(common))), 3),
        "psnr_full_rank": round(float(np.mean(measure(network))), 3),
    }


def count(parameters) -> int:
    """How many numbers."""
    return sum(parameter.numel() for parameter in parameters)


def told(what: str, steps: int) -> Callable[[StepReport], None]:
    """Says how far a training is, ten times."""
    every = max(steps // 10, 1)

    def tell(report: StepReport) -> None:
        if report.step % every == 0:
            print(f"analyze: {what}, step {report.step} of {steps}, loss {report.loss:.5f}", flush=True)

    return tell


def write_plots(tasks: tuple[str, ...], scores: dict[str, list[float]], energy: Tensor) -> None:
    """The tables and the picture that `dvc plots` shows and MLflow keeps; without rows where nothing was measured."""
    rows = [
        {"layer": layer, "task": task, "psnr_gain": gain}
        for layer, gains in scores.items()
        for task, gain in zip(tasks, gains, strict=True)
    ]
    kept = [
        {"rank": rank, "task": task, "energy": float(share)}
        for task, shares in zip(tasks, energy, strict=False)
        for rank, share in enumerate(shares)
    ]
    for path, table, columns in (
        (SENSITIVITY, rows, ("layer", "task", "psnr_gain")),
        (SPECTRUM, kept, ("rank", "task", "energy")),
    ):
        with replace_file(path) as temporary:
            pd.DataFrame(table, columns=columns).to_csv(temporary, index=False, float_format="%.5g")
    with replace_file(HEAT_MAP) as temporary:
        draw_heat_map(tasks, scores, temporary)


def draw_heat_map(tasks: tuple[str, ...], scores: dict[str, list[float]], path: Path) -> None:
    """Write a PNG of the PSNR that each layer's bias gains each task, dB; an empty frame where `scores` is empty."""
    from matplotlib.colors import SymLogNorm  # here: its import writes into the home folder
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 0.7 * len(tasks), 1.5 + 0.22 * len(scores)), layout="constrained")
    axes = figure.subplots()
    if scores:
        values = np.array(list(scores.values()))
        reach = max(float(np.abs(values).max()), 1e-9)
        picture = axes.imshow(values, aspect="auto", cmap="RdBu_r", norm=SymLogNorm(0.02, vmin=-reach, vmax=reach))
        figure.colorbar(picture, label="PSNR gained, dB")
    axes.set_xticks(range(len(tasks)), tasks, rotation=45)
    axes.set_yticks(range(len(scores)), list(scores), fontsize=7)
    figure.savefig(path, format="png", dpi=100)


def main() -> None:
    """Read params.yaml, choose, and write choice, summary and plots."""
    params = load_params()
    pinned = params.modulation
    if pinned.rank == "auto" or pinned.layers == "auto":
        choice, scores, energy, summary = analyze_somewhere(params)
        print(
            f"analyze: {len(choice.layers)} of {summary['candidates']} layers, rank {choice.rank}; the biases are "
            f"{summary['bias_share']:.0%} of the backbone and keep {summary['energy_kept']:.0%} of the full-rank "
            f"energy; heat map in {HEAT_MAP} (dvc plots show)"
        )
    else:
        choice, scores, energy = Choice(pinned.rank, pinned.layers), {}, torch.zeros(0, 0)
        summary = {"rank": choice.rank, "layers": len(choice.layers)}
        print("analyze: skipped, params.yaml.modulation pins layers and rank")
    write_choice(choice)
    write_json(SUMMARY, summary)
    write_plots(tuple(params.tasks), scores, energy)


if __name__ == "__main__":
    run(main, __doc__)
