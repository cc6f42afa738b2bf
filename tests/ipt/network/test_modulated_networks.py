"""Task biases on whole networks: ours, a plain residual stack, Swin2SR of transformers, a UNet of diffusers."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from ipt.network.backbone import Backbone
from ipt.network.config import preset_config
from ipt.network.modulation import merge, modulate, modulated_layers, selected, task_parameters

TASKS = 3
close = {"atol": 1e-4, "rtol": 1e-4}


class Residual(nn.Module):
    """A block as of ResNet, with normalisation by group."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(2, width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(2, width),
        )  # fmt: skip

    def forward(self, x):
        return torch.relu(x + self.body(x))


def resnet():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Residual(8), Residual(8), nn.Conv2d(8, 3, 1))
    return network, ("*",), lambda model, x: model(x)


def swin2sr():
    from transformers import Swin2SRConfig, Swin2SRModel

    config = Swin2SRConfig(
        image_size=16, patch_size=1, embed_dim=12, depths=[2], num_heads=[2], window_size=4, mlp_ratio=2.0
    )
    # Windows become rows of the batch; the layers of the position bias, which all images share, stay out.
    layers = ("*.self.query", "*.self.value", "*.output.dense", "*.intermediate.dense")
    return Swin2SRModel(config).eval(), layers, lambda model, x: model(x).last_hidden_state


def unet():
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=16, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return network.eval(), ("*",), lambda model, x: model(x, torch.arange(len(x))).sample


def ours():
    network = Backbone(preset_config("tiny", ("a", "b", "c"), 1, ("*",)))
    nn.init.normal_(network.head.weight, std=0.05)  # it starts at zero
    return network, ("stem", "head", "*.expand", "*.query_key_value", "*.local"), lambda model, x: model(x)


@pytest.fixture(params=[ours, resnet, swin2sr, unet], ids=lambda build: build.__name__)
def case(request):
    """The plain network, the same with trained task biases, and how to call it."""
    torch.manual_seed(0)
    plain, layers, call = request.param()
    network = modulate(copy.deepcopy(plain), TASKS, rank=2, layers=layers)
    assert len(modulated_layers(network)) >= 6
    with torch.no_grad():
        for factor in task_parameters(network):
            factor.copy_(torch.randn_like(factor) * 0.1)
    return plain, network, call


def test_at_start_nothing_changes(case):
    plain, network, call = case
    x = torch.rand(TASKS, 3, 16, 16)
    for factor in task_parameters(network)[::2]:
        factor.data.zero_()  # U
    with selected(network, torch.arange(TASKS)), torch.no_grad():
        torch.testing.assert_close(call(network, x), call(plain, x), **close)


@pytest.mark.parametrize("index", [(0, 1, 2), (2, 0, 0, 1)])
def test_a_mixed_batch_gives_each_image_its_tasks_merged_network(case, index):
    _, network, call = case
    x = torch.rand(len(index), 3, 16, 16)
    with torch.no_grad():
        with selected(network, torch.tensor(index)):
            mixed = call(network, x)
        outputs = [call(merge(network, task), x) for task in range(TASKS)]
    for place, task in enumerate(index):
        torch.testing.assert_close(mixed[place], outputs[task][place], **close)
        assert (outputs[task][place] - outputs[task - 1][place]).abs().max() > 1e-3


def test_copies_and_pickles_give_the_same(case):
    _, network, call = case
    x, index = torch.rand(TASKS, 3, 16, 16), torch.arange(TASKS)
    outputs = []
    for model in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with selected(model, index), torch.no_grad():
            outputs.append(call(model, x))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_gradient_checkpointing_gives_the_same_gradients(case):
    _, network, call = case
    x, index = torch.rand(TASKS, 3, 16, 16), torch.arange(TASKS)
    gradients = []
    for run in (call, lambda model, x: checkpoint(call, model, x, use_reentrant=False)):
        network.zero_grad()
        with selected(network, index):
            run(network, x).square().mean().backward()
        gradients.append([factor.grad.clone() for factor in task_parameters(network)])
    for direct, again in zip(*gradients, strict=True):
        torch.testing.assert_close(direct, again)
    assert max(gradient.abs().max() for gradient in gradients[0]) > 0


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_compiled_it_is_one_graph_for_all_tasks(case, backend):
    _, network, call = case
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend(backend)
    compiled = torch.compile(lambda x: call(network, x), backend=graphs, fullgraph=True)
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        for index in ((2, 0, 0, 1), (1, 1, 0, 2), (0, 0, 0, 0)):  # the second call must not compile again
            with selected(network, torch.tensor(index)):
                torch.testing.assert_close(compiled(x), call(network, x), **close)
    assert graphs.frame_count == 1


def test_a_layer_whose_input_is_not_the_samples_says_so():
    network, _, call = swin2sr()
    modulate(network, TASKS, 2)
    with selected(network, torch.arange(TASKS)), pytest.raises(ValueError, match="leave it out of `layers`"):
        call(network, torch.rand(TASKS, 3, 16, 16))
