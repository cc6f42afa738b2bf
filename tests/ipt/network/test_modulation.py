"""Task biases: W_t = W + s U_t V_t, for each sample of a batch, in any network."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ipt.network.modulation import (
    ModulatedConv2d,
    merge,
    modulate,
    modulated_layers,
    selected,
    task_parameters,
)

TASKS = 3
LAYERS = {
    "linear": (lambda: nn.Linear(5, 7), (4, 5)),
    "linear of vectors": (lambda: nn.Linear(5, 7), (5,)),
    "linear of images": (lambda: nn.Linear(5, 7, bias=False), (3, 4, 5)),
    "1x1": (lambda: nn.Conv2d(6, 4, 1), (6, 5, 7)),
    "3x3": (lambda: nn.Conv2d(6, 4, 3, padding=1, bias=False), (6, 5, 7)),
    "strided": (lambda: nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (6, 9, 7)),
    "dilated": (lambda: nn.Conv2d(6, 4, 3, dilation=2), (6, 9, 7)),
    "grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2, padding=1), (6, 5, 7)),
    "depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6, padding=1), (6, 5, 7)),
}
ORDERS = {
    "sorted, equally often": (0, 0, 1, 1, 2, 2),
    "each once": (0, 1, 2),
    "unsorted": (2, 0, 1, 1, 0, 2),
    "sorted, equally often, one task missing": (0, 0, 0, 2, 2, 2),
    "sorted, unequal": (0, 0, 0, 1, 2, 2),
    "one task": (1, 1, 1),
    "one sample": (2,),
}
any_layer = pytest.mark.parametrize("layer", LAYERS)
any_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
close = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def build(fill_parameters):
    """A one-layer network with trained task factors, and its plain counterpart."""

    def make(layer: str):
        plain = nn.Sequential(LAYERS[layer][0]())
        network = modulate(copy.deepcopy(plain), TASKS, rank=2)
        fill_parameters(network, 0, scale=0.5)
        plain.load_state_dict({name: network.state_dict()[name] for name in plain.state_dict()})
        return network, plain

    return make


def apply(network, x, order, strength=1.0):
    with selected(network, torch.tensor(order), strength):
        return network(x)


@any_layer
@any_order
def test_at_start_the_output_equals_the_backbones(layer, order):
    plain = nn.Sequential(LAYERS[layer][0]())
    network = modulate(copy.deepcopy(plain), TASKS, rank=2)
    x = torch.randn(len(order), *LAYERS[layer][1])
    assert torch.equal(network(x), plain(x))  # nothing selected
    torch.testing.assert_close(apply(network, x, order), plain(x), atol=1e-6, rtol=1e-5)
    (modulated,) = modulated_layers(network).values()
    assert torch.equal(modulated.task_weights(), plain[0].weight.flatten(1).expand(TASKS, -1, -1))
    assert modulated.task_down.detach().abs().min() > 0  # so the gradient reaches U


@any_layer
@any_order
def test_each_row_of_a_batch_equals_that_row_alone_and_the_formula(build, layer, order):
    network, plain = build(layer)
    (modulated,) = modulated_layers(network).values()
    x = torch.randn(len(order), *LAYERS[layer][1])
    together = apply(network, x, order, 0.7)
    for row, task in enumerate(order):
        alone = apply(network, x[row : row + 1], (task,), 0.7)
        torch.testing.assert_close(together[row], alone[0], **close)
        expected = copy.deepcopy(plain)
        bias = modulated.task_up[task] @ modulated.task_down[task]
        expected[0].weight.data += 0.7 * bias.detach().view_as(plain[0].weight)
        torch.testing.assert_close(together[row], expected(x[row : row + 1])[0], **close)


@any_layer
@any_order
def test_gradients_equal_autograd_through_explicit_weights(build, layer, order):
    network, plain = build(layer)
    (modulated,) = modulated_layers(network).values()
    x = torch.randn(len(order), *LAYERS[layer][1], requires_grad=True)
    out = apply(network, x, order, 0.7)
    direction = torch.randn_like(out)
    (out * direction).sum().backward()

    leaves = [
        p.detach().clone().requires_grad_() for p in (x, modulated.weight, modulated.task_up, modulated.task_down)
    ]
    image, weight, up, down = leaves
    rows = []
    for row, task in enumerate(order):
        w = weight + 0.7 * (up[task] @ down[task]).view_as(weight)
        if isinstance(plain[0], nn.Linear):
            rows.append(F.linear(image[row : row + 1], w, plain[0].bias))
        else:
            conv = plain[0]
            rest = (conv.stride, conv.padding, conv.dilation, conv.groups)
            rows.append(F.conv2d(image[row : row + 1], w, conv.bias, *rest))
    (torch.cat(rows) * direction).sum().backward()
    ours = (x, modulated.weight, modulated.task_up, modulated.task_down)
    for got, expected in zip(ours, leaves, strict=True):
        torch.testing.assert_close(got.grad, expected.grad, atol=1e-4, rtol=1e-4)


@any_layer
def test_a_batch_of_one_task_leaves_the_others_without_gradient(build, layer):
    network, _ = build(layer)
    (modulated,) = modulated_layers(network).values()
    apply(network, torch.randn(3, *LAYERS[layer][1]), (1, 1, 1)).square().sum().backward()
    for factor in task_parameters(network):
        assert not factor.grad[0].any()
        assert not factor.grad[2].any()
        assert factor.grad[1].any()
    assert modulated.weight.grad.any()


@any_layer
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_merged_equals_unmerged_and_leaves_the_model_alone(build, layer, strength):
    network, plain = build(layer)
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(4, *LAYERS[layer][1])
    expected = apply(network, x, (2, 2, 2, 2), strength)
    merged = merge(network, 2, strength)
    torch.testing.assert_close(merged(x), expected, **close)
    assert torch.equal(merge(merged, 2, strength)(x), merged(x))  # merging twice equals once
    assert type(merged[0]) is type(plain[0])
    assert repr(merged[0]) == repr(plain[0])
    assert {n: v.shape for n, v in merged.state_dict().items()} == {n: v.shape for n, v in plain.state_dict().items()}
    with torch.no_grad():
        merged[0].weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(apply(network, x, (2, 2, 2, 2), strength), expected, atol=0, rtol=0)


@any_layer
def test_strength_0_is_the_backbone_and_weights_are_linear_in_it(build, layer):
    network, plain = build(layer)
    x = torch.randn(3, *LAYERS[layer][1])
    at = {s: apply(network, x, (0, 1, 2), s) for s in (0.0, 0.5, 1.0, 1.5)}
    torch.testing.assert_close(at[0.0], plain(x), **close)
    step = at[0.5] - at[0.0]
    torch.testing.assert_close(at[1.0], at[0.0] + 2 * step, **close)
    torch.testing.assert_close(at[1.5], at[0.0] + 3 * step, **close)
    assert torch.equal(network(x), plain(x))  # outside of `selected`: the backbone alone


@any_layer
def test_factors_have_the_stated_shapes_and_rank_fits_the_layer(layer):
    rows, columns = LAYERS[layer][0]().weight.flatten(1).shape
    for asked in (1, 2, 99):
        network = modulate(nn.Sequential(LAYERS[layer][0]()), TASKS, asked)
        (modulated,) = modulated_layers(network).values()
        rank = min(asked, rows, columns)
        assert modulated.task_up.shape == (TASKS, rows, rank)
        assert modulated.task_down.shape == (TASKS, rank, columns)


@any_layer
def test_a_network_of_one_task_is_its_merged_one(layer, fill_parameters):
    network = fill_parameters(modulate(nn.Sequential(LAYERS[layer][0]()), 1, 2), 0, scale=0.5)
    x = torch.randn(3, *LAYERS[layer][1])
    torch.testing.assert_close(apply(network, x, (0, 0, 0)), merge(network, 0)(x), **close)


RANKS = (4, 0, 2)


@pytest.fixture
def ranked(fill_parameters):
    """A one-layer network whose tasks have ranks of their own, with trained factors; and its plain counterpart."""

    def make(layer: str):
        plain = nn.Sequential(LAYERS[layer][0]())
        network = fill_parameters(modulate(copy.deepcopy(plain), TASKS, RANKS), 0, scale=0.5)
        plain.load_state_dict({name: network.state_dict()[name] for name in plain.state_dict()})
        return network, plain

    return make


@any_layer
@any_order
def test_with_a_rank_for_each_task_rows_are_alone_what_they_are_together(ranked, layer, order):
    network, plain = ranked(layer)
    (modulated,) = modulated_layers(network).values()
    x = torch.randn(len(order), *LAYERS[layer][1])
    together = apply(network, x, order, 0.7)
    for row, task in enumerate(order):
        up, down = modulated.factors(task)
        expected = copy.deepcopy(plain)
        expected[0].weight.data += 0.7 * (up @ down).detach().view_as(plain[0].weight)
        torch.testing.assert_close(together[row], expected(x[row : row + 1])[0], **close)
        torch.testing.assert_close(merge(network, task, 0.7)(x[row : row + 1])[0], together[row], **close)


@any_layer
def test_a_task_has_as_many_numbers_as_its_rank(ranked, layer):
    network, plain = ranked(layer)
    (modulated,) = modulated_layers(network).values()
    rows, columns = plain[0].weight.flatten(1).shape
    ranks = [min(rank, rows, columns) for rank in RANKS]
    assert modulated.ranks == tuple(ranks)
    for task, rank in enumerate(ranks):
        up, down = modulated.factors(task)
        assert (up.shape, down.shape) == ((rows, rank), (rank, columns))
    assert sum(p.numel() for p in task_parameters(network)) == sum(ranks) * (rows + columns)
    assert torch.equal(merge(network, 1)[0].weight, plain[0].weight)  # rank 0: the backbone to the bit


@any_layer
def test_with_a_rank_for_each_task_all_factors_have_a_gradient_in_every_batch(ranked, layer):
    """DistributedDataParallel waits for each parameter, whatever tasks a batch has."""
    network, _ = ranked(layer)
    (modulated,) = modulated_layers(network).values()
    apply(network, torch.randn(2, *LAYERS[layer][1]), (2, 2)).square().sum().backward()
    first = modulated.ranks[0]
    assert not modulated.task_up.grad[:, :first].any()
    assert modulated.task_up.grad[:, first:].any()
    assert modulated.task_down.grad[first:].any()
    assert modulated.weight.grad.any()


def test_equal_ranks_are_kept_as_one_rank_is():
    layer = LAYERS["3x3"][0]
    one, each = (modulate(nn.Sequential(layer()), TASKS, rank) for rank in (2, (2, 2, 2)))
    assert {n: v.shape for n, v in one.state_dict().items()} == {n: v.shape for n, v in each.state_dict().items()}
    each.load_state_dict(one.state_dict())


def copies(network):
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    yield copy.deepcopy(network)
    yield pickle.loads(pickle.dumps(network))
    yield torch.load(buffer, weights_only=False)


def test_copies_keep_the_output_and_one_selection_of_their_own(fill_parameters):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    network = fill_parameters(modulate(plain, TASKS, 2), 0)
    x = torch.randn(3, 3, 6, 6)
    expected = apply(network, x, (2, 0, 1))
    others = list(copies(network))
    assert len(others) == 3
    for other in others:
        layers = list(modulated_layers(other).values())
        assert [type(layer) for layer in layers] == [ModulatedConv2d] * 2
        assert layers[0].selection is layers[1].selection
        assert layers[0].selection is not network[0].selection
        assert torch.equal(apply(other, x, (2, 0, 1)), expected)


def test_the_selection_ends_with_its_block_also_after_an_error(build):
    network, plain = build("linear")
    x = torch.randn(3, *LAYERS["linear"][1])
    with pytest.raises(RuntimeError, match="stop"), selected(network, torch.arange(3)):
        raise RuntimeError("stop")
    assert torch.equal(network(x), plain(x))
    with selected(network, torch.arange(3), 0.5):
        outer = network(x)
        with selected(network, None):
            assert torch.equal(network(x), plain(x))
        assert torch.equal(network(x), outer)


def test_a_network_without_biases_can_be_selected_and_merged():
    plain = nn.Sequential(nn.Linear(2, 2))
    x = torch.randn(3, 2)
    with selected(plain, torch.arange(3)):
        assert torch.equal(plain(x), merge(plain, 0)(x))
