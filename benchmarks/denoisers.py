"""What `make bench-diffusion` trains and measures: pictures, a denoiser that has converged, rows that go on from it.

All rows of a seed go on from the same weights and meet the same crops, timesteps and noise.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiTTransformer2DModel
from torch import Tensor, nn

from ipt.biases.adapters import hold_backbone
from ipt.diffusion.cuts import optimal_boundaries
from ipt.diffusion.denoiser import IntervalDenoiser, modulate_denoiser
from ipt.diffusion.denoising import denoising_step, draw_intervals, draw_timesteps, interval_errors, sample_images
from ipt.diffusion.noise_levels import boundaries, noise_intervals, schedule_of
from ipt.diffusion.wasserstein import sliced_wasserstein
from ipt.network.modulation import task_parameters
from ipt.training.fit import TrainingSettings, TrainingState
from pipelines.common.files import replace_folder, write_json
from pipelines.common.params import DeadLeaves, Folder, Source
from pipelines.pictures.sources import list_pictures, read_picture
from pipelines.pictures.tiles import cut_tiles

RESULTS = Path("build/diffusion")
SIDE, TILE, BATCH, INTERVALS = 16, 64, 32, 4
LEAVES, PHOTOGRAPHS = "leaves", "photographs"
DRAWN = DeadLeaves(images=240, size=256)
SHRUNK = 0.5  # photographs are: they are sharper so, and a crop shows more
EVERY = 5  # each such picture is held out
NETWORK = {
    "attention_head_dim": 16, "num_attention_heads": 4, "num_layers": 4, "patch_size": 4, "in_channels": 3,
    "sample_size": SIDE, "num_embeds_ada_norm": 1, "norm_num_groups": 1,
}  # fmt: skip
BASE_STEPS, BASE_RATE, CHECK_EVERY = 30_000, 2e-3, 1000
STEPS = 1000  # of each row
HELD_OUT, SAMPLES, SAMPLING_STEPS, TO_CUT_BY = 1024, 256, 20, 4096
RANKS = (16, 8, 4, 0)
OUTSIDE = 0.15


@dataclass(frozen=True)
class Row:
    """How the converged denoiser is gone on with."""

    cut: str | None = None  # one (interval), equal or fitted; None: no biases
    ranks: tuple[int, ...] = ()  # of the intervals
    free: bool = False  # the backbone learns too
    outside: float = 0.0
    learns: bool = True


def _with_intervals() -> dict[str, Row]:
    each = (sum(RANKS) // INTERVALS,) * INTERVALS
    kinds = {
        "equal intervals": ("equal", each),
        "equal intervals, fitted ranks": ("equal", RANKS),
        "fitted intervals": ("fitted", each),
        "fitted intervals and ranks": ("fitted", RANKS),
    }
    return {
        f"{name}{', free' if free else ''}{f', {outside:.0%}' if outside else ''}": Row(cut, ranks, free, outside)
        for free in (False, True)
        for name, (cut, ranks) in kinds.items()
        for outside in (0.0, OUTSIDE)
    }


ROWS = {"start": Row(learns=False), "plain": Row(free=True), "one LoRA": Row("one", (sum(RANKS),))} | _with_intervals()
# Learning rates that are tried, of the backbone, of one LoRA and of biases by interval.
TRIED = {
    "plain": (1e-4, 3e-4, 1e-3, 3e-3),
    "one LoRA": (3e-4, 1e-3, 3e-3, 1e-2),
    "equal intervals": (3e-4, 1e-3, 3e-3, 1e-2),
}


class Unconditional(nn.Module):
    """A DiT of one class, called without the class."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = False, **given: Tensor) -> tuple[Tensor]:
        """(B, 3, H, W) and one timestep or (B,) to the prediction, in a tuple."""
        labels = torch.zeros(len(sample), dtype=torch.long, device=sample.device)
        return self.denoiser(sample, timestep.expand(len(sample)), labels, return_dict=False, **given)


@functools.cache
def schedule() -> DDPMScheduler:
    """Noise of Ho et al. 2020; the network predicts the velocity (Salimans & Ho 2022)."""
    return DDPMScheduler(1000, prediction_type="v_prediction")


@functools.cache
def levels() -> Tensor:
    """The noise levels that errors are told of and that a batch holds equally often, whatever a row's intervals are."""
    return noise_intervals(schedule_of(schedule()), INTERVALS)


def check_numbers() -> None:
    """Raise ValueError where RESULTS holds those of other numbers than today's."""
    numbers = {
        "network": NETWORK, "tile": TILE, "batch": BATCH, "drawn": dataclasses.asdict(DRAWN), "shrunk": SHRUNK,
        "base_steps": BASE_STEPS, "base_rate": BASE_RATE, "steps": STEPS, "held_out": HELD_OUT, "samples": SAMPLES,
        "sampling_steps": SAMPLING_STEPS, "to_cut_by": TO_CUT_BY, "ranks": list(RANKS), "outside": OUTSIDE,
    }  # fmt: skip
    path = RESULTS / "numbers.json"
    if path.is_file() and (before := json.loads(path.read_text())) != numbers:
        other = [name for name in numbers if before.get(name) != numbers[name]]
        raise ValueError(f"{RESULTS}: holds results of other numbers ({', '.join(other)}); remove it to measure anew")
    write_json(path, numbers)


def path_of(name: str) -> Path:
    """Where the result of that name is kept."""
    return RESULTS / f"{name.replace(',', '').replace('%', '').replace(' ', '-')}.json"


def kept(name: str, make: Callable[[], dict]) -> dict:
    """The result of that name, made now where it is not there."""
    path = path_of(name)
    if not path.is_file():
        result = make()
        write_json(path, result)
        print(f"{path.stem}: {json.dumps(result)[:160]}", flush=True)
    return json.loads(path.read_text())


def tiles(regime: str, split: str, photographs: Path | None) -> np.ndarray:
    """Tiles of drawn pictures or photographs, uint8 (N, TILE, TILE, 3); every fifth picture is for `val`."""
    path = RESULTS / regime
    if not path.is_dir():
        leaves = Source(dead_leaves=DRAWN)
        source = leaves if regime == LEAVES else Source(folder=Folder(str(photographs), (SHRUNK,)))
        found: dict[str, list[np.ndarray]] = {"train": [], "val": []}
        for number, picture in enumerate(list_pictures(source, seed=0)):
            image = read_picture(picture)
            cut = cut_tiles(image, regime, picture.name, picture.scales, TILE, TILE)
            found["train" if number % EVERY else "val"] += [tile.clean for tile in cut]
        with replace_folder(path) as folder:
            for name, images in found.items():
                np.save(folder / f"{name}.npy", np.stack(images))
    return np.load(path / f"{split}.npy")


def crops(images: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random tiles, perhaps mirrored: (count, 3, SIDE, SIDE) in [0, 1]."""
    chosen = images[rng.integers(len(images), size=count)]
    places = rng.integers(0, TILE - SIDE + 1, size=(count, 2))
    flips = rng.choice([1, -1], size=count)
    cut = [
        tile[top : top + SIDE, left : left + SIDE][:, ::flip]
        for tile, (top, left), flip in zip(chosen, places, flips, strict=True)
    ]
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255


def settings(steps: int, rate: float, bias_rate: float, ema: float, decay: int | None = None) -> TrainingSettings:
    """The numbers of a training."""
    return TrainingSettings(
        steps=steps, learning_rate=rate, bias_learning_rate=bias_rate, warmup_steps=steps // 20, weight_decay=1e-4,
        clip_norm=1.0, ema_decay=ema, task_weights=(), bf16=False, decay_steps=decay,
    )  # fmt: skip


def one_step(state: TrainingState, images: np.ndarray, seed: int, outside: float = 0.0) -> None:
    """The next step of a training; what it meets depends on the seed and its number alone."""
    rng = np.random.default_rng([seed, state.step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    torch.manual_seed(int(rng.integers(2**63)))  # a DiT drops class labels now and then
    clean, timesteps = crops(images, BATCH, rng), draw_timesteps(levels(), BATCH, generator)
    noise = torch.randn(clean.shape, generator=generator)
    given, network = {}, state.model.get_submodule("denoiser")
    if isinstance(network, IntervalDenoiser):
        interval = draw_intervals(network.interval_of_timestep[timesteps], network.intervals, outside, generator)
        order = interval.argsort(stable=True)  # runs are faster
        clean, timesteps, noise, given = clean[order], timesteps[order], noise[order], {"interval": interval[order]}
    denoising_step(state, state.model, schedule(), clean, timesteps, noise, **given)


def backbone() -> nn.Module:
    """A plain DiT, untrained."""
    torch.manual_seed(0)
    return DiTTransformer2DModel(**NETWORK)


def base() -> dict[str, Tensor]:
    """The weights of a denoiser of drawn pictures that has converged; its error over steps is kept beside them."""
    folder, images = RESULTS / "base", tiles(LEAVES, "train", None)
    held_out = crops(tiles(LEAVES, "val", None), HELD_OUT, np.random.default_rng(1))
    numbers = settings(BASE_STEPS, BASE_RATE, BASE_RATE, 0.999, decay=BASE_STEPS // 2)
    state, curve = TrainingState(Unconditional(backbone().train()), numbers), []
    if folder.is_dir():
        state.load(folder)
        curve = json.loads((folder / "curve.json").read_text())
    while state.step < BASE_STEPS:
        one_step(state, images, seed=0)
        if state.step % CHECK_EVERY == 0 or state.step == BASE_STEPS:
            errors = interval_errors(state.ema.module.eval(), schedule(), levels(), held_out, seed=0)
            curve.append({"step": state.step, "errors": errors})
            print(f"base, step {state.step}: {np.round(errors, 4)}", flush=True)
            with replace_folder(folder) as written:
                state.save(written)
                write_json(written / "curve.json", curve)
    return state.ema.module.get_submodule("denoiser").state_dict()


def first_timesteps(cut: str, images: Callable[[], np.ndarray], regime: str) -> list[int]:
    """Where the intervals of a row begin; the fitted ones are kept."""
    if cut == "one":
        return []
    if cut == "equal":
        return boundaries(levels())

    def fit() -> dict:
        clean = crops(images(), TO_CUT_BY, np.random.default_rng(2))
        return {"boundaries": optimal_boundaries(clean, schedule(), INTERVALS, seed=0)}

    return kept(f"{regime}-fitted-intervals", fit)["boundaries"]


def build(row: Row, weights: dict[str, Tensor], first: list[int]) -> nn.Module:
    """The denoiser of a row before its first step: equal to the plain one."""
    network = backbone()
    network.load_state_dict(weights)
    if row.cut is None:
        return network
    denoiser = modulate_denoiser(network, schedule(), first, row.ranks)
    if not row.free:
        hold_backbone(denoiser)
    return denoiser


def train(row: Row, weights: dict, first: list[int], images: np.ndarray, seed: int, rates: tuple) -> nn.Module:
    """The averaged network of a row, called without a class."""
    network = Unconditional(build(row, weights, first))
    if not row.learns:
        return network.eval()
    state = TrainingState(network.train(), settings(STEPS, *rates, 0.99))
    while state.step < STEPS:
        one_step(state, images, seed, row.outside)
    return state.ema.module.eval()


def measure(network: nn.Module, held_out: np.ndarray, seed: int) -> dict:
    """Held-out error by noise level, distance of samples with its floor, and how many numbers the biases have.

    The crops, and so their spread, are the seed's own; the floor is between crops of two halves of the tiles.
    """
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(held_out))
    first, second = (crops(held_out[order[half::2]], HELD_OUT // 2, rng) for half in (0, 1))
    sampler = DDIMScheduler.from_config(schedule().config)
    drawn = sample_images(network, sampler, SAMPLES, SIDE, seed, SAMPLING_STEPS)
    return {
        "added": sum(factor.numel() for factor in task_parameters(network)),
        "errors": interval_errors(network, schedule(), levels(), torch.cat([first, second]), seed),
        "distance": sliced_wasserstein(drawn, first[:SAMPLES]),
        "floor": sliced_wasserstein(second[:SAMPLES], first[:SAMPLES]),
    }
