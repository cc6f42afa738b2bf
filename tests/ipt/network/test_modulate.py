"""Which layers `modulate` gives task biases, and what it refuses."""

import re

import pytest
from torch import nn

from ipt.network.modulation import ModulatedLinear, modulate, modulated_layers, task_parameters


def test_only_layers_that_match_a_pattern_are_modulated():
    def network():
        inner = nn.ModuleDict({"first": nn.Linear(2, 2), "other": nn.ReLU()})
        return nn.ModuleDict({"encoder": inner, "decoder": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})

    assert list(modulated_layers(modulate(network(), 2, 1, ("encoder.*",)))) == ["encoder.first"]
    both = modulated_layers(modulate(network(), 2, 1, ("dec*", "*.first")))
    assert {name: type(layer) for name, layer in both.items()} == {
        "encoder.first": ModulatedLinear,
        "decoder": ModulatedLinear,
    }
    assert len(task_parameters(modulate(network(), 2, 1))) == 4
    assert modulated_layers(network()) == {}


@pytest.mark.parametrize(("tasks", "rank"), [(3, 0), (3, -2), (0, 1)])
def test_a_rank_or_number_of_tasks_below_1_is_refused(tasks, rank):
    with pytest.raises(ValueError, match=f"rank and number of tasks of 1 or more, got rank {rank}, {tasks} tasks"):
        modulate(nn.Sequential(nn.Linear(2, 2)), tasks, rank)


@pytest.mark.parametrize("ranks", [(4, 2), (4, 2, 1, 1), (0, 0, 0), (4, -1, 2), (4, 1.5, 2), ()])
def test_ranks_that_are_not_one_for_each_task_are_refused(ranks):
    network = nn.Sequential(nn.Linear(2, 2))
    message = rf"expected a rank for each of 3 tasks, .* not all 0, got {re.escape(str(list(ranks)))}"
    with pytest.raises(ValueError, match=message):
        modulate(network, 3, ranks)
    assert modulated_layers(network) == {}


def test_a_pattern_that_matches_no_layer_is_refused():
    network = nn.ModuleDict({"expand": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    with pytest.raises(ValueError, match=r"no Linear or Conv2d layer matches 'expnad'; did you mean expand\?"):
        modulate(network, 2, 1, ("expand", "expnad"))
    with pytest.raises(ValueError, match=r"no Linear or Conv2d layer matches 'norm'; .*has 1"):
        modulate(network, 2, 1, ("norm",))
    assert modulated_layers(network) == {}


def test_modulating_twice_is_refused():
    network = modulate(nn.Sequential(nn.Linear(2, 2)), 2, 1)
    with pytest.raises(ValueError, match="has task biases already"):
        modulate(network, 2, 1)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, 1, 1, padding_mode="reflect")]
)
def test_convolutions_with_other_padding_are_refused(layer):
    with pytest.raises(ValueError, match=r"numeric zero padding, got Conv2d"):
        modulate(nn.Sequential(layer), 2, 1)


def test_without_a_rank_the_biases_have_full_rank():
    network = modulate(nn.Sequential(nn.Linear(5, 7), nn.Conv2d(2, 30, 3)), 2, None)
    ranks = [layer.task_up.shape[-1] for layer in modulated_layers(network).values()]
    assert ranks == [5, 18]


def test_a_model_without_a_layer_to_modulate_is_refused():
    with pytest.raises(ValueError, match="Sequential has no Linear or Conv2d"):
        modulate(nn.Sequential(nn.ReLU()), 2, 2)
