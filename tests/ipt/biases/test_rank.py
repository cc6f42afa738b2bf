"""Rank analysis: spectra of U V, and the rank that keeps their energy."""

import copy

import pytest
import torch
from torch import nn

from ipt.biases.rank import affordable_rank, constant_rank, energy_by_rank, singular_spectra
from ipt.network.modulation import modulate, modulated_layers, task_parameters


@pytest.fixture
def network(fill_parameters):
    model = nn.Sequential(nn.Linear(5, 7), nn.Conv2d(2, 9, 3, groups=1))
    return fill_parameters(modulate(model, 3, None), 0)


def test_spectra_are_those_of_the_products(network):
    spectra = singular_spectra(network)
    assert {name: tuple(values.shape) for name, values in spectra.items()} == {"0": (3, 5), "1": (3, 9)}
    for name, layer in modulated_layers(network).items():
        expected = torch.linalg.svdvals((layer.task_up @ layer.task_down).detach().double())
        torch.testing.assert_close(spectra[name], expected[:, : spectra[name].shape[1]], atol=1e-5, rtol=1e-5)


def test_a_layer_with_fewer_columns_than_the_rank_keeps_its_shape(fill_parameters):
    model = fill_parameters(modulate(nn.Sequential(nn.Linear(3, 8)), 2, None), 1)
    assert singular_spectra(model)["0"].shape == (2, 3)


def test_what_a_task_lacks_of_the_largest_rank_is_zero(fill_parameters):
    model = fill_parameters(modulate(nn.Sequential(nn.Linear(5, 7)), 3, (4, 0, 2)), 0)
    (layer,) = modulated_layers(model).values()
    values = singular_spectra(model)["0"]
    assert values.shape == (3, 4)
    for task, rank in enumerate((4, 0, 2)):
        up, down = layer.factors(task)
        expected = torch.linalg.svdvals((up @ down).detach().double())[:rank]
        torch.testing.assert_close(values[task, :rank], expected, atol=1e-5, rtol=1e-5)
        assert (values[task, rank:] < 1e-6).all()


def test_energy_adds_up_over_layers_and_grows_with_the_rank():
    spectra = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[4.0, 5.0, 1.0]])}
    energy = energy_by_rank(spectra, ["a", "b"])
    torch.testing.assert_close(energy, torch.tensor([[0.0, 25.0, 50.0, 51.0]]) / 51)
    torch.testing.assert_close(energy_by_rank(spectra, ["a"]), torch.tensor([[0.0, 1.0, 1.0]]))


@pytest.mark.parametrize(
    ("energy", "rank"), [(0.1, 1), (0.49, 1), (0.5, 2), (25 / 51, 1), (0.98, 2), (0.99, 3), (1.0, 3)]
)
def test_the_smallest_rank_that_keeps_enough(energy, rank):
    spectra = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[4.0, 5.0, 1.0]])}
    assert constant_rank(spectra, ["a", "b"], energy) == rank


def test_the_rank_serves_the_most_demanding_task():
    spectra = {"a": torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])}
    assert constant_rank(spectra, ["a"], 0.9) == 3
    assert constant_rank({"a": spectra["a"][:1]}, ["a"], 0.9) == 1


@pytest.mark.parametrize("share", [0.5, 1.5, 2.9, 3.0, 50.0])
def test_the_affordable_rank_is_the_largest_whose_biases_are_small_enough(share):
    plain = nn.Sequential(nn.Linear(6, 8), nn.Conv2d(2, 9, 3), nn.Linear(9, 9))
    backbone = sum(p.numel() for p in plain.parameters())

    def biases(rank: int) -> int:
        return sum(p.numel() for p in task_parameters(modulate(copy.deepcopy(plain), 3, rank, ["0", "1"])))

    rank = affordable_rank(modulate(copy.deepcopy(plain), 3, None), ["0", "1"], share)
    assert biases(rank) <= share * backbone
    assert rank == 9 or biases(rank + 1) > share * backbone


def test_a_rank_of_1_is_affordable_at_any_price():
    assert affordable_rank(modulate(nn.Sequential(nn.Linear(6, 8)), 3, None), ["0"], 0.01) == 1
