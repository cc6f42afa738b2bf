"""Task biases on a diffusion denoiser: its tasks are intervals of noise level (`ipt/diffusion/noise_levels.py`).

Works on any denoiser called as (sample, timestep, ...), and with any scheduler that has `alphas_cumprod`; those of
diffusers do, and nothing here imports diffusers.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ipt.diffusion.noise_levels import (
    SCHEDULE,
    boundaries,
    check_scheduler,
    noise_intervals,
    prediction_type,
    schedule_of,
)
from ipt.files import replace_file
from ipt.network.modulation import merge, modulate, modulated_layers, selected
from ipt.weights import misfits

CONFIG, WEIGHTS = "noise_levels.json", "noise_levels.safetensors"


class IntervalDenoiser(nn.Module):
    """A modulated denoiser that is called as the plain one and picks the interval of each sample by its timestep.

    A batch may mix timesteps. Where no gradient is asked for, in eval mode, and all samples are in one interval, as in
    sampling, that interval's merged denoiser is called: it costs what the plain one costs. Merged denoisers are kept
    until a weight changes. What is not found here (`config`, `dtype`, ...) is the denoiser's. `intervals` are those of
    `noise_intervals`.
    """

    interval_of_timestep: Tensor

    def __init__(self, denoiser: nn.Module, scheduler: Any, intervals: int | Sequence[int]) -> None:
        super().__init__()
        self._signature = inspect.signature(denoiser.forward)
        if "timestep" not in self._signature.parameters:
            raise ValueError(
                f"denoiser: expected one called with (sample, timestep, ...), {type(denoiser).__name__} is called with "
                f"{self._signature}"
            )
        self.denoiser = denoiser
        self.prediction_type = prediction_type(scheduler)
        schedule = schedule_of(scheduler)
        table = noise_intervals(schedule, intervals)
        self.register_buffer("interval_of_timestep", table, persistent=False)
        self.intervals = int(table.max()) + 1
        self._table: list[int] = table.tolist()
        self._schedule = schedule  # no buffer: half precision would change it
        self._merged: dict[int, nn.Module] = {}
        self._merged_from: list[tuple[int, int]] = []
        self._tables: list[dict[str, nn.Parameter | None]] = []
        self._held: list[Tensor] = []

    def forward(self, *args: Any, interval: Tensor | None = None, **kwargs: Any) -> Any:
        """What the denoiser is called with, and what it gives.

        `timestep` is an integer, or a tensor of integers of shape (), (1,) or (B,); a ValueError says so of others, and
        of timesteps that the schedule does not have. In training `interval` (B,) may give a sample the weights of
        another interval than its own.
        """
        given = self._signature.bind(*args, **kwargs).arguments
        sample = next(iter(given.values()))
        # Python's numbers: after a pass through the network the processor's caches are cold for every call into torch.
        intervals = self.intervals_of(given.get("timestep"), len(sample))
        if interval is None and len(set(intervals)) == 1 and not (self.training or torch.is_grad_enabled()):
            return self.merged(intervals[0])(*args, **kwargs)
        if interval is None:
            interval = torch.tensor(intervals, device=self.interval_of_timestep.device).expand(len(sample))
        with selected(self.denoiser, interval):
            return self.denoiser(*args, **kwargs)

    def intervals_of(self, timestep: Tensor | int | None, batch: int) -> list[int]:
        """The interval of each sample of a batch, or one where there is one timestep; `timestep` as in `forward`."""
        steps: list[Any]
        if isinstance(timestep, Tensor):
            whole = not (timestep.is_floating_point() or timestep.is_complex() or timestep.dtype == torch.bool)
            if whole and timestep.shape not in ((), (1,), (batch,)):
                raise ValueError(
                    f"timestep: expected one, or one for each of {batch} samples, got shape {tuple(timestep.shape)}"
                )
            steps = [timestep.item()] if timestep.dim() == 0 else timestep.tolist()
        else:
            whole, steps = isinstance(timestep, int) and not isinstance(timestep, bool), [timestep]
        if not whole:
            kind = timestep.dtype if isinstance(timestep, Tensor) else type(timestep).__name__
            raise ValueError(
                f"timestep: expected integers, got {kind}; use a scheduler that gives them (DDPM, DDIM, DPM-Solver++)"
            )
        if outside := [step for step in steps if not 0 <= step < len(self._table)]:
            raise ValueError(f"timestep: expected 0 to {len(self._table) - 1}, got {outside[0]}")
        return [self._table[step] for step in steps]

    def merged(self, interval: int) -> nn.Module:
        """The plain denoiser of one interval: W_t in its weights. Kept and shared: not to be changed."""
        if not 0 <= interval < self.intervals:
            raise ValueError(f"interval: expected 0 to {self.intervals - 1}, got {interval}")
        if not self._merged or self._merged_from != self._weights():
            # Looked up in the modules' own tables: to walk the network at every call takes longer than all else here.
            self._tables = [module._parameters for module in self.denoiser.modules()]
            self._merged, self._merged_from = {}, self._weights()
            # Held, so that no other weight comes to lie where one of these lay.
            self._held = [weight.detach() for weight in self.denoiser.parameters()]
        if interval not in self._merged:
            with torch.inference_mode(False), torch.no_grad():
                self._merged[interval] = merge(self.denoiser, interval).eval().requires_grad_(False)
        return self._merged[interval]

    def _weights(self) -> list[tuple[int, int]]:
        """Where each weight lies and how often it was written."""
        return [(w.data_ptr(), w._version) for table in self._tables for w in table.values() if w is not None]

    def backbone(self) -> nn.Module:
        """A plain copy of the denoiser without biases."""
        return merge(self.denoiser, 0, strength=0.0)

    def check_scheduler(self, scheduler: Any) -> None:
        """Raise ValueError for a scheduler of another prediction type or schedule than the biases were trained for."""
        check_scheduler(scheduler, self.prediction_type, self._schedule)

    def train(self, mode: bool = True) -> IntervalDenoiser:
        """Training mode or eval mode; merged denoisers are dropped."""
        self._merged, self._held = {}, []
        return super().train(mode)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the backbone as diffusers does, and the adapter beside it; `load_denoiser` reads both."""
        plain: Any = self.backbone()  # one of diffusers', which write themselves
        plain.save_pretrained(folder)
        save_adapter(self, folder)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("denoiser"), name)


def modulate_denoiser(
    denoiser: nn.Module,
    scheduler: Any,
    intervals: int | Sequence[int],
    rank: int | Sequence[int],
    layers: Sequence[str] = ("*",),
) -> IntervalDenoiser:
    """Give `denoiser`, in place, a bias for each interval of noise level; its output stays until trained.

    `intervals` is their number, for equal lengths of log-SNR, or a list of the first timestep of each but the first
    (`optimal_boundaries` finds one). `rank` is that of each, or a list of one for each, the cleanest first; 0 is none.
    `layers` are shell patterns on module names. `scheduler` gives the noise of each timestep and says what the denoiser
    predicts. Raises ValueError as `noise_intervals` and `modulate` do, with `denoiser` untouched.
    """
    wrapped = IntervalDenoiser(denoiser, scheduler, intervals)
    modulate(denoiser, wrapped.intervals, rank, layers)
    return wrapped


def save_adapter(denoiser: IntervalDenoiser, folder: Path | str) -> None:
    """Write the biases of all intervals (noise_levels.json, noise_levels.safetensors) into `folder`.

    Killed while the two get their names, it leaves an adapter that is refused when loaded.
    """
    folder = Path(folder)
    layers = modulated_layers(denoiser.denoiser)
    weights = {name: value.detach().cpu().contiguous() for name, value in _factors(denoiser).items()}
    content = save(weights | {SCHEDULE: denoiser._schedule})
    config = {
        "boundaries": boundaries(denoiser.interval_of_timestep),  # the first timestep of each interval but the first
        "ranks": [max(ranks) for ranks in zip(*(layer.ranks for layer in layers.values()), strict=True)],
        "layers": list(layers),
        "prediction_type": denoiser.prediction_type,
        "backbone": fingerprint(denoiser.backbone()),
        "sha256": hashlib.sha256(content).hexdigest(),  # of the weights
    }
    with replace_file(folder / CONFIG) as described, replace_file(folder / WEIGHTS) as file:
        described.write_text(json.dumps(config, indent=2) + "\n")
        file.write_bytes(content)


def load_denoiser(backbone: nn.Module, folder: Path | str, scheduler: Any) -> IntervalDenoiser:
    """Put the adapter in `folder` onto the backbone it was trained with, in place; ready for sampling.

    Raises ValueError, with `backbone` untouched, for a damaged adapter, another backbone (its weights count: they were
    trained together), or a scheduler with another prediction type or schedule.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text())
        content = (folder / WEIGHTS).read_bytes()
        if "sha256" in config and config["sha256"] != hashlib.sha256(content).hexdigest():  # of before, there is none
            raise ValueError(f"{WEIGHTS} is not the one that {CONFIG} was written with")
        weights = load(content)
        schedule, layers = weights.pop(SCHEDULE), tuple(config["layers"])
        kind, trained_with = config["prediction_type"], config["backbone"]
        if "boundaries" in config:
            intervals, rank = [int(each) for each in config["boundaries"]], [int(each) for each in config["ranks"]]
        else:  # of before: intervals of equal length in log-SNR, and one rank
            intervals = boundaries(noise_intervals(schedule, int(config["intervals"])))
            rank = [int(config["rank"])] * (len(intervals) + 1)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: expected an adapter, {CONFIG} and {WEIGHTS} as `save_adapter` writes them: {error!r}"
        ) from error
    check_scheduler(scheduler, kind, schedule)
    if fingerprint(backbone) != trained_with:
        raise ValueError(
            f"{folder}: the adapter was trained with another backbone; load the one that lies beside it, in the "
            "precision it was saved in (cast the whole afterwards)"
        )
    wrapped = modulate_denoiser(copy.deepcopy(backbone), scheduler, intervals, rank, layers)
    if problems := misfits({name: value.shape for name, value in _factors(wrapped).items()}, weights):
        raise ValueError(f"{folder}: the adapter does not fit the backbone: {problems}")
    modulate(backbone, wrapped.intervals, rank, layers)
    wrapped.denoiser = backbone
    with torch.no_grad():
        for name, value in _factors(wrapped).items():
            value.copy_(weights[name])
    return wrapped.eval()


def export_merged(denoiser: IntervalDenoiser, folder: Path | str) -> list[Path]:
    """Write the plain denoiser of each interval, as diffusers does, into `folder`/interval-0, -1, ...; returns them."""
    folders = [Path(folder) / f"interval-{interval}" for interval in range(denoiser.intervals)]
    for interval, each in enumerate(folders):
        merged: Any = denoiser.merged(interval)  # one of diffusers', which write themselves
        merged.save_pretrained(each)
    return folders


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of all weights of a network, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + flat.numpy().tobytes())
    return digest.hexdigest()


def _factors(denoiser: IntervalDenoiser) -> dict[str, nn.Parameter]:
    """U and V of each modulated layer."""
    layers = modulated_layers(denoiser.denoiser)
    return {
        f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("task_up", "task_down")
    }
