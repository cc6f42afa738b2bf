"""What does not fit is named, the first few."""

import pytest
import torch
from torch import nn

from ipt.weights import CheckpointError, load_weights, misfits, save_weights


def test_what_fits_has_no_problem():
    assert misfits({"a": torch.Size([2])}, {"a": torch.zeros(2)}) == ""


def test_each_kind_of_problem_is_named():
    said = misfits({"a": torch.Size([2]), "b": torch.Size([1])}, {"a": torch.zeros(3), "c": torch.zeros(1)})
    assert said == "missing b; unexpected c; a: expected shape (2,), got (3,)"


def test_many_problems_are_counted():
    assert misfits({f"{n}": torch.Size([1]) for n in range(8)}, {}).endswith("missing 4 and 3 more")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_and_change_nothing(tmp_path, value):
    damaged, network = nn.Linear(2, 3), nn.Linear(2, 3)
    before = network.weight.detach().clone()
    with torch.no_grad():
        damaged.weight[1, 1] = value
    save_weights(damaged, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights that are no finite numbers: weight$"):
        load_weights(network, tmp_path / "weights.safetensors")
    assert torch.equal(network.weight, before)
