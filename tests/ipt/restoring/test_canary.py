"""The canary picture: models that restore pass, models that spoil are told by what they do."""

import copy

import numpy as np
import pytest
import torch

from ipt.model import InstructIPT
from ipt.restoring.canary import CanaryError, canary_picture, check_canary


@pytest.fixture
def model(make_config):
    """One that changes nothing: heads and biases are zero at first."""
    return InstructIPT(make_config()).eval()


def test_the_picture_is_the_same_each_time_and_has_room_to_both_sides():
    picture = canary_picture()
    assert picture.dtype == np.uint8
    assert picture.shape == (48, 48, 3)
    assert np.array_equal(picture, canary_picture())
    assert (picture.min() > 10, picture.max() < 245) == (True, True)


def test_the_released_model_and_one_that_changes_nothing_pass(model):
    check_canary(InstructIPT.from_pretrained())
    check_canary(model)


@pytest.mark.parametrize("level", [-2.0, 2.0])
def test_black_and_white_show_nothing(model, level):
    model.backbone.head.bias.data.fill_(level)
    with pytest.raises(CanaryError, match="canary: denoise: the restored picture shows nothing: everywhere"):
        check_canary(model)


def test_noise_is_too_far_from_the_picture(randomized, make_config):
    with pytest.raises(
        CanaryError, match=r"canary: denoise: the restored picture is 0\.\d+ from the given one, expected at most 0\.45"
    ):
        check_canary(randomized(make_config()))


def test_numbers_that_are_none_are_told_wherever_they_come_from(model):
    model.backbone.head.bias.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="no numbers"):
        check_canary(model)
    check_canary(model, [])
    for part, what in (("estimator", "looking at it"), ("instruction", "reading 'remove the noise'")):
        spoilt = copy.deepcopy(model)
        for parameter in getattr(spoilt, part).parameters():
            parameter.data.fill_(float("nan"))
        with pytest.raises(CanaryError, match=f"canary: {what}: expected probabilities, got"):
            check_canary(spoilt, [])


def test_one_spoilt_task_among_good_ones_is_found(model):
    layer = next(module for name, module in model.backbone.named_modules() if hasattr(module, "task_up"))
    layer.task_up[1].data.fill_(float("nan"))
    check_canary(model, ["denoise"])
    with pytest.raises(RuntimeError, match="no numbers"):
        check_canary(model)
    assert torch.isfinite(layer.task_up[0]).all()
