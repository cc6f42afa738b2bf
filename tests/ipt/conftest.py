"""What the tests of the model share: small configs and models whose every parameter matters."""

import pytest
import torch

from ipt.model import InstructIPT


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _float32(without_bf16):
    pass


@pytest.fixture(autouse=True)
def _same_numbers_each_time():
    torch.manual_seed(0)


@pytest.fixture
def randomized(fill_parameters):
    """Build a model with noise in all parameters: heads and task factors are zero otherwise."""

    def build(config, seed: int = 0) -> InstructIPT:
        return fill_parameters(InstructIPT(config), seed).eval()

    return build
