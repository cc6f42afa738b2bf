"""The new task's batches, and its training on a small model."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.sixth_task import BATCH, CROP, RECIPES, batches, outputs, psnr
from degradations.recipe import check_recipe
from ipt.biases.adapters import add_task
from ipt.biases.sensitivity import fit_biases
from ipt.model import InstructIPT
from ipt.training.fit import TrainingSettings


@pytest.fixture
def cleans():
    return [np.random.default_rng(seed).random((CROP + 8, CROP, 3), np.float32) * 0.8 for seed in range(3)]


@pytest.mark.parametrize("task", RECIPES)
def test_recipes_are_sound_and_batches_the_same_every_time(cleans, task):
    check_recipe(RECIPES[task], task)
    one, again = (list(itertools.islice(batches(cleans, task, 5, 0), 2)) for _ in range(2))
    for first, second in zip(one, again, strict=True):
        assert first.degraded.shape == first.clean.shape == (BATCH, 3, CROP, CROP)
        assert torch.equal(first.degraded, second.degraded)
        assert first.index.tolist() == [5] * BATCH
        assert (first.degraded - first.clean).abs().mean() > 1e-3
    assert not torch.equal(one[0].clean, one[1].clean)


def test_the_new_task_learns_and_the_others_stay_to_the_bit(cleans, make_config, fill_parameters):
    network = fill_parameters(InstructIPT(make_config(layers=("head", "*.project"))), 0, scale=0.05).eval().backbone
    images = torch.rand(2, 3, 16, 16)
    before = [outputs(network, images, task) for task in range(3)]
    number = add_task(network)
    settings = TrainingSettings(
        steps=10, learning_rate=1e-3, bias_learning_rate=1e-2, warmup_steps=1, weight_decay=0.0, clip_norm=1.0,
        ema_decay=0.5, task_weights=(1.0,) * 4, bf16=False,
    )  # fmt: skip
    start = outputs(network, images, number)
    trained = fit_biases(network, batches(cleans, "brighten", number, 0), settings)
    assert not torch.equal(outputs(trained, images, number), start)
    for task, kept in enumerate(before):
        assert torch.equal(outputs(trained, images, task), kept)


def test_psnr_is_that_of_8_bit_images():
    clean = torch.full((2, 3, 4, 4), 128 / 255)
    assert psnr(clean + 10 / 255, clean) == pytest.approx(20 * np.log10(255 / 10), abs=0.01)
    assert psnr(torch.full((1, 3, 4, 4), 1.7), torch.ones(1, 3, 4, 4)) == pytest.approx(100)
