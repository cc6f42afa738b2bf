"""What does not fit is named, the first few."""

import torch

from ipt.weights import misfits


def test_what_fits_has_no_problem():
    assert misfits({"a": torch.Size([2])}, {"a": torch.zeros(2)}) == ""


def test_each_kind_of_problem_is_named():
    said = misfits({"a": torch.Size([2]), "b": torch.Size([1])}, {"a": torch.zeros(3), "c": torch.zeros(1)})
    assert said == "missing b; unexpected c; a: expected shape (2,), got (3,)"


def test_many_problems_are_counted():
    assert misfits({f"{n}": torch.Size([1]) for n in range(8)}, {}).endswith("missing 4 and 3 more")
