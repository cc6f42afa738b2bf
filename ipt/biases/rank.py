"""How large task biases have to be and may be: spectra, the rank that keeps their energy, and the one that fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ipt.network.modulation import ModulatedLayer, modulated_layers, task_parameters


@torch.no_grad()
def singular_spectra(model: nn.Module) -> dict[str, Tensor]:
    """The singular values of U V of each task, (T, r) by layer, falling; double precision."""
    spectra = {}
    for name, layer in modulated_layers(model).items():
        _, core, _ = orthogonal_core(*layer.stacked_factors())
        spectra[name] = torch.linalg.svdvals(core)
    return spectra


def orthogonal_core(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, C, P with `up @ down` = Q C P^T, in double precision.

    (T, out, r), (T, r, in) to (T, out, q), (T, q, p), (T, in, p). Q and P have orthonormal columns, so the singular
    values of the product are those of C, which is r x r at most.
    """
    left, left_mix = torch.linalg.qr(up.double())
    right, right_mix = torch.linalg.qr(down.double().transpose(1, 2))
    return left, left_mix @ right_mix.transpose(1, 2), right


def energy_by_rank(spectra: dict[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Share of the energy (squared singular values) of all `layers` that rank 0, 1, 2, ... keeps, (T, R + 1)."""
    largest = max(spectra[name].shape[1] for name in layers)
    energy = torch.stack(
        [torch.nn.functional.pad(spectra[name].square(), (0, largest - spectra[name].shape[1])) for name in layers]
    ).sum(0)
    kept = torch.nn.functional.pad(energy.cumsum(1), (1, 0))
    return kept / energy.sum(1, keepdim=True).clamp_min(1e-300)


def constant_rank(spectra: dict[str, Tensor], layers: Sequence[str], energy: float) -> int:
    """The smallest rank, the same for all `layers` and tasks, that keeps the share `energy` (0 to 1] of each task."""
    enough = (energy_by_rank(spectra, layers) >= energy - 1e-9).all(0)
    return max(int(enough.int().argmax()), 1)


def affordable_rank(model: nn.Module, layers: Sequence[str], share: float) -> int:
    """The largest rank, the same for all `layers`, at which the biases of all tasks have at most `share` of the numbers
    of the rest of a modulated `model`; 1 where even that has more.
    """
    modulated = {name: layer for name, layer in modulated_layers(model).items() if name in set(layers)}
    backbone = backbone_numbers(model)
    largest = max(min(layer.weight.flatten(1).shape) for layer in modulated.values())
    ranks = range(1, largest + 1)
    return max((rank for rank in ranks if bias_numbers(modulated.values(), rank) <= share * backbone), default=1)


def backbone_numbers(model: nn.Module) -> int:
    """How many numbers a model has besides its task biases."""
    biases = sum(factor.numel() for factor in task_parameters(model))
    return sum(parameter.numel() for parameter in model.parameters()) - biases


def bias_numbers(layers: Iterable[ModulatedLayer], rank: int) -> int:
    """How many numbers the biases of all tasks have at that rank; a layer never has more than its full rank."""
    total = 0
    for layer in layers:
        rows, columns = layer.weight.flatten(1).shape
        total += len(layer.ranks) * min(rank, rows, columns) * (rows + columns)
    return total
