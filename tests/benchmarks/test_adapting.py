"""A bias that learns real pairs: it gets better at them, and nothing else in the network changes."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.adapting import adapted, crops, gains
from ipt.network.task_network import TaskNetwork


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    cleans = [rng.uniform(0.2, 0.8, (24, 32, 3)).astype(np.float32) for _ in range(2)]
    return [(clean * np.float32(0.6), clean) for clean in cleans]


def test_degraded_and_clean_are_cut_and_turned_alike(pairs):
    for batch in itertools.islice(crops(pairs, 2, 4, 16, 0), 5):
        torch.testing.assert_close(batch.degraded, batch.clean * 0.6)
        assert batch.clean.shape == (4, 3, 16, 16)
        assert batch.index.tolist() == [2] * 4


def test_only_the_bias_of_the_task_changes_and_it_helps(pairs, make_config, fill_parameters):
    network = fill_parameters(TaskNetwork(make_config()), 0, 0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gained = gains(network, "derain", pairs)
    found = adapted(network, "derain", pairs, 60, 2e-2, 16)
    assert gains(found, "derain", pairs).mean() > gained.mean() + 0.1
    number = network.task_index("derain")
    for name, value in found.state_dict().items():
        if name.endswith((".task_up", ".task_down")):
            for task in {0, 1, 2} - {number}:
                assert torch.equal(value[task], before[name][task]), name
        else:
            assert torch.equal(value, before[name]), name
