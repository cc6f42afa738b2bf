"""torch.compile takes a network that knows tasks, mixed batches of several sizes included; nothing of ours needs it."""

import pytest
import torch

from ipt.network.config import preset_config
from ipt.network.modulation import task_parameters
from ipt.network.task_network import TaskNetwork


@pytest.mark.slow  # it compiles C++ for a minute and a half
def test_compiled_it_restores_mixed_batches_of_several_sizes_as_it_is():
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = TaskNetwork(preset_config("tiny", ("a", "b"), 4, ("head", "stem", "up.0"))).eval()
    for parameter in (network.backbone.head.weight, *task_parameters(network)):  # untrained, they are zero
        torch.nn.init.normal_(parameter, std=0.05)
    compiled = torch.compile(network)
    index = torch.tensor([0, 0, 1, 1])
    with torch.inference_mode():
        for side in (32, 48, 64):
            x = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(side))
            restored = network(x, index)
            torch.testing.assert_close(compiled(x, index), restored, atol=1e-3, rtol=0)
            assert (restored - x).abs().mean() > 0.01
