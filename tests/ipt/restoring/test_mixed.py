"""A batch of mixed tasks restores as each image alone."""

import numpy as np
import pytest

from ipt.model import InstructIPT
from ipt.network.backbone import Backbone
from ipt.restoring.mixed import restore_mixed
from ipt.restoring.restore import restore_tasks


@pytest.fixture(scope="module")
def model(make_config, fill_parameters):
    return fill_parameters(InstructIPT(make_config()), 0, 0.1).eval()


@pytest.mark.parametrize("strength", [0.0, 0.7, 1.5])
def test_a_mixed_batch_gives_what_each_image_gives_alone(model, strength):
    rng = np.random.default_rng(1)
    tasks = ["deblur", "denoise", "derain", "deblur", "denoise"]
    images = [rng.integers(0, 256, (21, 34, 3), np.uint8) for _ in tasks]
    images[2] = (images[2].astype(np.uint16) << 8) + 7
    images[3] = np.full_like(images[3], 90)  # shows nothing
    restored = restore_mixed(model, images, tasks, strength=strength, precision="fp32")
    for image, task, result in zip(images, tasks, restored, strict=True):
        alone = restore_tasks(model, image, [task], strength=strength, precision="fp32")
        assert result.dtype == image.dtype
        assert np.abs(result.astype(int) - alone).max() <= (1 if image.dtype == np.uint8 else 2)
    assert np.array_equal(restored[3], images[3])
    if strength:  # the biases tell the tasks apart
        other = restore_mixed(model, images, tasks[::-1], strength=strength)
        assert not np.array_equal(other[0], restored[0])


def test_an_image_whose_values_are_no_numbers_costs_itself_alone(model, monkeypatch):
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (12, 16, 3), np.uint8) for _ in range(3)]
    images.insert(1, np.full_like(images[0], 90))  # shows nothing: no network sees it
    whole = restore_mixed(model, images, ["denoise"] * 4)
    forward = Backbone.forward

    def spoil_the_second(self, batch):
        restored = forward(self, batch)
        restored[1, 0, 0, 0] = float("nan")
        return restored

    monkeypatch.setattr(Backbone, "forward", spoil_the_second)
    restored = restore_mixed(model, images, ["denoise"] * 4)
    assert isinstance(restored[2], RuntimeError)
    assert "values that are no numbers" in str(restored[2])
    for place in (0, 1, 3):
        assert np.array_equal(restored[place], whole[place])


def test_what_cannot_be_one_batch_is_refused(model):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="one size"):
        restore_mixed(model, [image, image[:4]], ["denoise", "denoise"])
    with pytest.raises(ValueError, match="unknown task"):
        restore_mixed(model, [image], ["dance"])
    with pytest.raises(ValueError, match="strength"):
        restore_mixed(model, [image], ["denoise"], strength=float("nan"))
    assert restore_mixed(model, [], []) == []
