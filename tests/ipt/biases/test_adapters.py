"""One task's bias by itself."""

import pytest
import torch
from torch import nn

from ipt.biases.adapters import adapter_state, add_task, load_adapter
from ipt.network.modulation import modulate, selected, task_parameters


def network(tasks: int = 3, rank: int | tuple[int, ...] | None = 2) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 6, 3, padding=1, groups=6))
    return modulate(layers, tasks, rank)


def output(model: nn.Module, task: int, x: torch.Tensor) -> torch.Tensor:
    with selected(model, torch.full((len(x),), task)):
        return model(x)


@pytest.fixture
def trained(fill_parameters):
    return fill_parameters(network(), 0)


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8)


def test_a_bias_moves_to_another_model_of_the_same_backbone(trained, fill_parameters, x):
    other = fill_parameters(network(tasks=2), 1)
    plain = {name: value for name, value in trained.state_dict().items() if "task_" not in name}
    other.load_state_dict(plain, strict=False)
    before = output(other, 0, x)
    load_adapter(other, 1, adapter_state(trained, 2))
    assert torch.equal(output(other, 1, x), output(trained, 2, x))
    assert torch.equal(output(other, 0, x), before)


def test_a_taken_bias_is_a_copy(trained):
    state = adapter_state(trained, 1)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "0.task_up": (6, 2), "0.task_down": (2, 27), "2.task_up": (6, 2), "2.task_down": (2, 9),
    }  # fmt: skip
    for value in state.values():
        value.zero_()
    assert adapter_state(trained, 1)["0.task_up"].abs().min() > 0


def test_a_new_task_starts_as_the_backbone_and_leaves_the_others_alone(trained, x):
    before = [output(trained, task, x) for task in range(3)]
    assert add_task(trained) == 3
    torch.testing.assert_close(output(trained, 3, x), trained(x), atol=1e-5, rtol=1e-5)
    for task in range(3):
        assert torch.equal(output(trained, task, x), before[task])


def test_training_the_new_task_alone_changes_no_bit_of_the_others(trained, x):
    before = [output(trained, task, x) for task in range(3)]
    new = add_task(trained)
    trained.requires_grad_(False)
    for factor in task_parameters(trained):
        factor.requires_grad_(True)
    optimizer = torch.optim.AdamW(task_parameters(trained), lr=1e-2, weight_decay=0, fused=True)
    target = torch.rand_like(output(trained, new, x))
    losses = []
    for _ in range(20):
        loss = (output(trained, new, x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    for task in range(3):
        assert torch.equal(output(trained, task, x), before[task])


def test_tasks_may_have_ranks_of_their_own(fill_parameters, x):
    one, other = (fill_parameters(network(3, (4, 0, 2)), seed) for seed in range(2))
    other.load_state_dict(
        {name: value for name, value in one.state_dict().items() if "task_" not in name}, strict=False
    )
    before = output(other, 0, x)
    state = adapter_state(one, 2)
    assert (state["0.task_up"].shape, adapter_state(one, 1)["0.task_up"].shape) == ((6, 2), (6, 0))
    load_adapter(other, 2, state)
    assert torch.equal(output(other, 2, x), output(one, 2, x))
    assert torch.equal(output(other, 0, x), before)
    with pytest.raises(ValueError, match=r"expected shape \(6, 4\), got \(6, 2\)"):
        load_adapter(other, 0, state)
    assert add_task(one) == 3
    assert adapter_state(one, 3)["0.task_down"].shape == (4, 27)
    torch.testing.assert_close(output(one, 3, x), one(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output(one, 2, x), output(other, 2, x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.task_up"), "missing 0.task_up"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda state: state.update({"0.task_up": torch.zeros(6, 3)}), r"expected shape \(6, 2\), got \(6, 3\)"),
    ],
)
def test_a_bias_that_does_not_fit_is_refused_and_nothing_changes(trained, x, change, message):
    state = adapter_state(trained, 0)
    change(state)
    before = output(trained, 1, x)
    with pytest.raises(ValueError, match=message):
        load_adapter(trained, 1, state)
    assert torch.equal(output(trained, 1, x), before)


def test_unknown_tasks_and_plain_models_are_refused(trained):
    for task in (3, -1):
        with pytest.raises(ValueError, match="expected a task from 0 to 2"):
            adapter_state(trained, task)
    with pytest.raises(ValueError, match="no task biases"):
        add_task(nn.Sequential(nn.Linear(2, 2)))
