"""`make bench-diffusion DATA=FOLDER`: when do biases by noise level earn their place in a diffusion denoiser?

A small DiT learns drawn pictures until its error is flat (docs/diffusion_curve.png). From there each row goes on for as
many steps, on the same drawn pictures and on the photographs in FOLDER (left out where none is named), which it has
never seen. Each result is kept in build/diffusion, so an interrupted call goes on where it was; with --kept the table
is written of what is there. It goes into docs/diffusion.md.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks import denoisers
from benchmarks.denoisers import INTERVALS, LEAVES, PHOTOGRAPHS, RANKS, ROWS, TRIED, Unconditional
from benchmarks.marks import write_between
from benchmarks.modulation import report, turns
from ipt.diffusion.denoiser import modulate_denoiser
from ipt.diffusion.denoising import denoising_step, draw_timesteps, interval_errors
from ipt.training.fit import TrainingState

matplotlib.use("Agg")
from matplotlib import pyplot as plt

REPORT, CURVE = Path("docs/diffusion.md"), Path("docs/diffusion_curve.png")
BEGIN = "<!-- made by `make bench-diffusion DATA=FOLDER` -->\n"
TITLES = {
    LEAVES: "Drawn pictures, as the denoiser has learnt",
    PHOTOGRAPHS: "Photographs, which it has not",
}
RATE_SEED = 100  # of the trials of learning rates
CONFIDENCE = 0.95


class Bench:
    """The rows, each measured when it is asked for and not yet kept."""

    def __init__(self, photographs: Path | None) -> None:
        self._photographs = photographs
        self._weights: dict[str, Tensor] | None = None
        self.regimes = [LEAVES, *([PHOTOGRAPHS] if photographs else [])]

    def row(self, name: str, regime: str, seed: int) -> dict:
        """One row's result."""
        return denoisers.kept(
            f"{regime}-{name}-seed{seed}",
            lambda: denoisers.measure(
                self._train(name, regime, seed, self._rates(name, regime)), self._tiles(regime, "val"), seed
            ),
        )

    def _train(self, name: str, regime: str, seed: int, rates: tuple[float, float]) -> nn.Module:
        self._weights = self._weights or denoisers.base()
        row, images = ROWS[name], self._tiles(regime, "train")
        first = denoisers.first_timesteps(row.cut, lambda: images, regime) if row.cut else []
        return denoisers.train(row, self._weights, first, images, seed, rates)

    def _tiles(self, regime: str, split: str) -> np.ndarray:
        return denoisers.tiles(regime, split, self._photographs)

    def _rates(self, name: str, regime: str) -> tuple[float, float]:
        """Of the backbone and of the biases: the best of those tried, on crops of training pictures."""
        cut = ROWS[name].cut
        biases = "plain" if cut is None else "one LoRA" if cut == "one" else "equal intervals"
        return self._best_rate("plain", regime), self._best_rate(biases, regime)

    def _best_rate(self, name: str, regime: str) -> float:
        def trial(rate: float) -> dict:
            network = self._train(name, regime, RATE_SEED, (rate, rate))
            rng = np.random.default_rng([RATE_SEED, 1])
            clean = denoisers.crops(self._tiles(regime, "train"), denoisers.HELD_OUT, rng)
            errors = interval_errors(network, denoisers.schedule(), denoisers.levels(), clean, RATE_SEED)
            return {"rate": rate, "error": float(np.mean(errors))}

        tried = [denoisers.kept(f"{regime}-{name}-rate{rate:g}", lambda r=rate: trial(r)) for rate in TRIED[name]]
        return min(tried, key=lambda each: each["error"])["rate"]


def results(regime: str, seeds: list[int]) -> dict[str, list[dict]]:
    """The rows that are kept of every seed, in the order of the seeds."""
    found = {}
    for name in ROWS:
        paths = [denoisers.path_of(f"{regime}-{name}-seed{seed}") for seed in seeds]
        if all(path.is_file() for path in paths):
            found[name] = [json.loads(path.read_text()) for path in paths]
    return found


def difference(row: list[dict], other: list[dict]) -> list[str]:
    """How far a row's errors are above another's, by noise level and of their mean, in percent of the other's mean over
    seeds: mean ± half the 95 % confidence interval (Student's t over seeds, paired); bold where that leaves out zero.
    """
    mine, others = (np.array([[*each["errors"], np.mean(each["errors"])] for each in rows]) for rows in (row, other))
    paired = 100 * (mine - others) / others.mean(0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(paired) - 1) * paired.std(0, ddof=1) / np.sqrt(len(paired))
    cells = []
    for mean, width in zip(paired.mean(0), half, strict=True):
        text = f"{mean:+.2f} ± {width:.2f}"
        cells.append(f"**{text}**" if abs(mean) > width else text)
    return cells


def table(found: dict[str, list[dict]], beside: str) -> str:
    """Markdown: the errors of the row `beside`, and how far the others are above them."""
    head = ["", "biases", *(f"level {level}" for level in range(INTERVALS)), "mean", "distance"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, row in found.items():
        errors = np.array([[*each["errors"], np.mean(each["errors"])] for each in row]).mean(0)
        cells = [f"{error:.4f}" for error in errors] if name == beside else difference(row, found[beside])
        distance = np.mean([each["distance"] for each in row])
        added = f"{row[0]['added'] / 1e3:.0f} k" if row[0]["added"] else ""
        lines.append(f"| {' | '.join([name, added, *cells, f'{distance:.4f}'])} |")
    floor = np.mean([each["floor"] for each in found[beside]])
    return "\n".join([*lines, "", f"Real against real: {floor:.4f}."])


def chosen_numbers(regime: str) -> str:
    """Where the intervals lie, and the learning rates."""
    equal = denoisers.first_timesteps("equal", lambda: None, regime)
    fitted = json.loads(denoisers.path_of(f"{regime}-fitted-intervals").read_text())["boundaries"]
    rates = []
    for name, tried in TRIED.items():
        trials = [json.loads(denoisers.path_of(f"{regime}-{name}-rate{rate:g}").read_text()) for rate in tried]
        rates.append(f"{name} {min(trials, key=lambda each: each['error'])['rate']:g}")
    return f"First timesteps: equal {equal}, fitted {fitted}. Learning rates: {', '.join(rates)}."


def write(seeds: list[int]) -> None:
    """The tables of what is kept of all the seeds, and the curve, into docs/."""
    parts = []
    for regime, title in TITLES.items():
        found = results(regime, seeds)
        if "plain" not in found:
            continue
        held = {name: row for name, row in found.items() if ROWS[name].cut and not ROWS[name].free}
        parts += [f"**{title}**, {len(seeds)} seeds; beside plain fine-tuning:", table(found, "plain")]
        parts += [f"{title}; backbone held, beside one LoRA:", table(held, "one LoRA")] if "one LoRA" in held else []
        parts.append(chosen_numbers(regime))
    curve = json.loads((denoisers.RESULTS / "base" / "curve.json").read_text())
    text = "\n\n".join([flatness(curve), *parts]) + "\n"
    print(text)
    draw(curve)
    write_between(REPORT, BEGIN, text)


def flatness(curve: list[dict]) -> str:
    """What the last tenth of the steps changed in the denoiser that all rows go on from, and its curve."""
    before, last = curve[-1 - max(len(curve) // 10, 1)], curve[-1]
    change = 100 * (np.mean(last["errors"]) / np.mean(before["errors"]) - 1)
    return (
        f"![held-out error by step]({CURVE.name})\n\nThe start: from step {before['step']:,} to {last['step']:,} its "
        f"mean held-out error changed by {change:+.2f} %."
    )


def draw(curve: list[dict]) -> None:
    """The held-out error of the denoiser that all rows go on from, by step."""
    steps, errors = [each["step"] for each in curve], np.array([each["errors"] for each in curve])
    figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for level, column in enumerate(errors.T):
        axis.plot(steps, column, label=f"noise level {level}")
    axis.plot(steps, errors.mean(1), "k", label="mean")
    axis.set(xlabel="step", ylabel="held-out error", yscale="log")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(CURVE, dpi=100)
    plt.close(figure)


def times(count: int) -> None:
    """Print what biases cost in a training and in a sampling step beside none."""
    plain, batch, side = denoisers.backbone(), denoisers.BATCH, denoisers.SIDE
    clean = torch.rand(batch, 3, side, side)
    even = draw_timesteps(denoisers.levels(), batch, torch.Generator().manual_seed(0))
    mixed = even[torch.randperm(batch, generator=torch.Generator().manual_seed(0))]
    alike, fitted = (
        modulate_denoiser(copy.deepcopy(plain), denoisers.schedule(), INTERVALS, ranks)
        for ranks in (sum(RANKS) // INTERVALS, RANKS)
    )

    def training(network: nn.Module, timesteps: Tensor) -> Callable[[], object]:
        state = TrainingState(Unconditional(network).train(), denoisers.settings(1000, 0.0, 0.0, 0.99))
        noise = torch.randn_like(clean)
        return lambda: denoising_step(state, state.model, denoisers.schedule(), clean, timesteps, noise)

    def sampling(network: nn.Module) -> Callable[[], object]:
        network = Unconditional(copy.deepcopy(network)).eval()
        return torch.no_grad()(lambda: network(clean, torch.tensor(500)))

    calls = {
        "plain": training(plain, even),
        "equal ranks": training(alike, even),
        "equal ranks, unsorted timesteps": training(alike, mixed),
        "fitted ranks": training(fitted, even),
    }
    report(f"training step, {batch} crops", turns(calls, count))
    report("sampling step", turns({"plain": sampling(plain), "merged, fitted ranks": sampling(fitted)}, count))


def main() -> None:
    """Measure what is not yet measured and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?", help="a folder of photographs to go on with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kept", action="store_true", help="only write the tables, of what is kept of these seeds")
    parser.add_argument("--times", type=int, metavar="TURNS", help="only measure the time of a step, in so many turns")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.times:
        times(given.times)
        return
    denoisers.check_numbers()
    if not given.kept:
        bench = Bench(given.photographs)
        for seed in given.seeds:
            for regime in bench.regimes:
                for name in ROWS:
                    bench.row(name, regime, seed)
    write(given.seeds)


if __name__ == "__main__":
    main()
