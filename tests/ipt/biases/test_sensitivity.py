"""Sensitivity: what each layer's bias gains each task, and the layers worth keeping."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from ipt.biases.sensitivity import ByTask, choose_layers, fit_all, fit_biases, level_of, sensitivity, without_biases
from ipt.network.backbone import Backbone
from ipt.network.modulation import modulate, modulated_layers, selected
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings

TASKS = 2
SETTINGS = TrainingSettings(
    steps=30, learning_rate=1e-2, bias_learning_rate=1e-2, warmup_steps=2, weight_decay=0, clip_norm=10,
    ema_decay=0.5, task_weights=(1.0, 1.0), bf16=False,
)  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 3, 1))


def batches():
    """Task 0 wants the picture darker, task 1 brighter: no shared weight can do both."""
    generator = torch.Generator().manual_seed(0)
    while True:
        degraded = torch.rand(4, 3, 8, 8, generator=generator)
        clean = torch.cat([degraded[:2] * 0.5, degraded[2:] * 1.5])
        yield Batch(degraded, clean, torch.tensor([0, 0, 1, 1]))


def errors(model: nn.Module) -> list[float]:
    """Minus the error of each task: larger is better, as PSNR is."""
    batch = next(batches())
    with torch.no_grad():
        error = (ByTask(model)(batch.degraded, batch.index) - batch.clean).abs().mean((1, 2, 3))
    return [-float(error[:2].mean()), -float(error[2:].mean())]


def test_fitting_all_trains_a_plain_network_that_heeds_no_task():
    plain = network()
    before = copy.deepcopy(plain.state_dict())
    losses = []
    averaged = fit_all(plain, batches(), SETTINGS, lambda report: losses.append(report.loss))
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all((before[name] != value).any() for name, value in plain.state_dict().items())
    assert not averaged.training
    assert type(averaged) is nn.Sequential


def test_fitting_biases_leaves_the_backbone_alone_and_helps_every_task():
    plain = fit_all(network(), batches(), SETTINGS)
    biased = modulate(copy.deepcopy(plain), TASKS, None)
    before = errors(biased)
    averaged = fit_biases(biased, batches(), SETTINGS)
    for name, value in plain.state_dict().items():
        assert torch.equal(biased.state_dict()[name], value)
        assert torch.equal(averaged.state_dict()[name], value)
    assert all(parameter.requires_grad for parameter in biased.parameters())
    assert all(after > first for after, first in zip(errors(averaged), before, strict=True))


def test_sensitivity_is_what_removing_a_layers_bias_costs(fill_parameters):
    biased = fill_parameters(modulate(network(), TASKS, 2), 0)
    kept = copy.deepcopy(biased.state_dict())
    scores = sensitivity(biased, errors)
    assert list(scores) == ["0", "1"]
    for name in scores:
        bare = copy.deepcopy(biased)
        modulated_layers(bare)[name].task_up.data.zero_()
        expected = [full - less for full, less in zip(errors(biased), errors(bare), strict=True)]
        assert scores[name] == pytest.approx(expected)
    assert all(torch.equal(kept[name], value) for name, value in biased.state_dict().items())


def test_biases_come_back_after_an_error(fill_parameters):
    biased = fill_parameters(modulate(network(), TASKS, 2), 0)
    x = torch.rand(2, 3, 4, 4)
    with selected(biased, torch.tensor([0, 1])):
        before = biased(x)
        with contextlib.suppress(KeyError), without_biases(biased, ["0", "1"]):
            bare = biased(x)
            raise KeyError
        assert torch.equal(biased(x), before)
    torch.testing.assert_close(bare, biased(x), atol=1e-5, rtol=1e-5)  # outside: the backbone alone


def test_the_layers_that_gain_more_than_their_share():
    scores = {"a": [0.1, 0.0], "b": [0.6, 0.5], "c": [-0.2, -0.1], "d": [0.3, 0.5]}  # 0.05, 0.55, 0 and 0.4 of 1
    assert choose_layers(scores, 0.1) == ["a", "b", "d"]  # never the one that harms
    assert choose_layers(scores, 1.0) == ["b", "d"]
    assert choose_layers(scores, 2.0) == ["b"]
    assert choose_layers(scores, 100.0) == ["b"]  # one at least


def test_the_choice_does_not_hang_on_the_tail():
    tail = {f"tail.{number}": [0.01 * number / 20] for number in range(20)}
    for noise in (0.5, 1.0, 2.0):
        scores = {"a": [0.3], "b": [0.1]} | {name: [noise * gain] for name, (gain,) in tail.items()}
        assert choose_layers(scores, 1.0) == ["a", "b"]


def test_a_level_is_chosen_whole_or_not_at_all():
    finest = ["stem", "encoder.0.0.mixer.expand", "encoder.0.0.mixer.project", "down.0", "head"]
    others = {"encoder.1.0.mixer.expand": [0.3], "down.1": [0.0], "middle.0.mixer.project": [0.2]}
    for gains in ([0.5, 0.05, 0.25, 0.3, 1.0], [0.4, 0.25, 0.05, 0.1, 1.2]):  # as it changes from seed to seed
        scores = {name: [gain] for name, gain in zip(finest, gains, strict=True)} | others
        assert choose_layers(scores, 1.0, level_of) == finest
        assert choose_layers(scores, 0.5, level_of) == [*finest, "middle.0.mixer.project"]


def test_levels_are_those_of_the_backbone(make_config):
    """Channels double from level to level: what a level's layers have tells which it is."""
    config = make_config(width=16, blocks=(1, 2, 1))
    for name, layer in Backbone(config).named_modules():
        if isinstance(layer, nn.Linear) and name.split(".")[0] not in ("down", "up"):
            level = {"0": 0, "1": 1, "middle": 2}[level_of(name)]
            assert config.width * 2**level in layer.weight.shape, name
    assert {level_of(name) for name in ("stem", "head", "down.0", "up.0", "decoder.0.0.mixer.expand")} == {"0"}
    assert (level_of("down.1"), level_of("up.1"), level_of("middle.1.mixer.project")) == ("1", "1", "middle")


def test_a_task_with_small_gains_has_its_say():
    scores = {"large": [10.0, 0.0], "other": [1.0, 0.0], "small": [0.0, 0.01]}
    assert choose_layers(scores, 1.0) == ["large", "small"]


def test_without_any_gain_nothing_can_be_chosen():
    with pytest.raises(ValueError, match="no layer's bias gains"):
        choose_layers({"a": [-1.0, 0.0]}, 1.0)
