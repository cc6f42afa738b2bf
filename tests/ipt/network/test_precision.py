"""bfloat16: as asked, or where the hardware has it."""

import pytest
import torch

from ipt.network import precision
from ipt.network.precision import has_bf16, uses_bf16

CPU = torch.device("cpu")


def test_bf16_of_this_machine_is_a_plain_answer():
    assert has_bf16(CPU) in (True, False)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_asked_for_is_used_and_auto_is_what_the_device_has(monkeypatch, there):
    monkeypatch.setattr(precision, "has_bf16", lambda device: there)
    assert uses_bf16("bf16", CPU)
    assert not uses_bf16("fp32", CPU)
    assert uses_bf16("auto", CPU) == there
