"""Restoring any image: sizes, tiles, the choice of a task, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipt import restore
from ipt.restore import check_image, choose_task, restore_image, restore_tiles


@pytest.fixture
def model(make_config, randomized):
    return randomized(make_config())


def random_image(*size: int) -> np.ndarray:
    return np.random.default_rng(0).random((*size, 3), np.float32)


def whole(model, image, task, strength=1.0):
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        restored = model(batch, torch.tensor([model.task_index(task)]), strength)
    return restored[0].permute(1, 2, 0).clamp(0, 1).numpy()


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (8, 8), (1, 30)])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_restored_image_is_the_models_in_shape_and_range(model, size, strength):
    image = random_image(*size)
    before = image.copy()
    restored = restore_image(model, image, task="derain", strength=strength)
    assert restored.dtype == np.float32
    assert restored.shape == image.shape
    np.testing.assert_allclose(restored, whole(model, image, "derain", strength), atol=1e-4)
    assert np.array_equal(image, before)


def test_the_model_stays_as_it_was(model):
    image = random_image(9, 9)
    first = restore_image(model, image, task="deblur")
    restore_image(model, image, task="derain", strength=0.1)
    assert np.array_equal(restore_image(model, image, task="deblur"), first)


def test_an_instruction_restores_as_its_task(model):
    with torch.no_grad():
        model.instruction.score.weight.zero_()
        model.instruction.score.weight[1] += 10
    image = random_image(9, 9)
    asked = restore_image(model, image, instruction="there is rain all over it")
    assert np.array_equal(asked, restore_image(model, image, task="derain"))


def test_an_image_that_is_larger_than_a_tile_is_cut_and_put_together(model, monkeypatch):
    monkeypatch.setattr(restore, "TILE", 16)
    monkeypatch.setattr(restore, "OVERLAP", 4)
    image = random_image(21, 37)
    restored = restore_image(model, image, task="denoise")
    assert restored.shape == image.shape
    np.testing.assert_allclose(restored[0, 0], whole(model, image[:16, :16], "denoise")[0, 0], atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 16), st.data())
def test_tiled_equals_whole_for_a_pointwise_function(height, width, tile, data):
    overlap = data.draw(st.integers(1, tile - 1))
    image = random_image(height, width)
    shapes = []

    def pointwise(part):
        shapes.append(part.shape)
        return part**2 + 1

    tiled = restore_tiles(image, pointwise, tile, overlap)
    np.testing.assert_allclose(tiled, image**2 + 1, rtol=1e-5)
    assert max(max(shape[:2]) for shape in shapes) <= tile
    if height <= tile and width <= tile:
        assert len(shapes) == 1


def test_tiles_blend_without_a_seam():
    """Neighbouring tiles that disagree by a constant meet in a ramp, not in a step."""
    calls = iter(range(9))
    blended = restore_tiles(np.zeros((8, 28, 3), np.float32), lambda tile: tile + next(calls), 16, 4)
    across = blended[0, :, 0]
    assert (across[:12] == 0).all()
    assert (across[16:] == 1).all()
    steps = np.diff(across)
    assert (steps >= 0).all()
    assert steps.max() < 0.3


@pytest.mark.parametrize(("task", "instruction"), [(None, None), ("derain", "remove the rain")])
def test_neither_or_both_of_task_and_instruction_are_refused(model, task, instruction):
    with pytest.raises(ValueError, match=r"^restore: expected either a task or an instruction; got task "):
        choose_task(model, task, instruction)


def test_an_unknown_task_is_refused(model):
    with pytest.raises(ValueError, match="unknown task 'derian'; did you mean 'derain'"):
        choose_task(model, "derian", None)
    with pytest.raises(ValueError, match="unknown task"):
        restore_image(model, random_image(4, 4), task="derian")


@pytest.mark.parametrize("sentence", ["", "hello there"])
def test_an_instruction_that_is_not_understood_is_refused(model, sentence):
    with torch.no_grad():
        model.instruction.score.weight.zero_()
    message = r"not sure what '.*' asks for \(most likely denoise, 25%\).* one of denoise, derain, deblur"
    with pytest.raises(ValueError, match=message):
        choose_task(model, None, sentence)
    with pytest.raises(ValueError, match="not sure"):
        restore_image(model, random_image(4, 4), instruction=sentence)


def test_a_tie_of_two_tasks_is_not_understood(make_config, randomized):
    model = randomized(make_config(tasks=("denoise", "derain")))
    with torch.no_grad():
        model.instruction.score.weight.zero_()
    with pytest.raises(ValueError, match="not sure"):
        choose_task(model, None, "hello there")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"expected float32 \(H, W, 3\), got uint8 \(4, 4, 3\)"),
        (np.zeros((4, 4, 3)), "got float64"),
        (np.zeros((4, 4), np.float32), r"got float32 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.float32), r"got float32 \(4, 4, 4\)"),
        (np.zeros((3, 4, 4), np.float32), r"got float32 \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.float32), r"got float32 \(0, 4, 3\)"),
        (np.full((4, 4, 3), 1.01, np.float32), r"expected values in \[0, 1\], got 1\.0\d* to 1\.0"),
        (np.full((4, 4, 3), -0.01, np.float32), "expected values in"),
        (
            np.where(np.arange(48).reshape(4, 4, 3) == 7, np.nan, 0.5).astype(np.float32),
            "got nan to nan",
        ),
        (np.full((4, 4, 3), np.inf, np.float32), "expected values in"),
    ],
)
def test_another_kind_of_image_is_refused(model, image, message):
    with pytest.raises(ValueError, match=f"^image: .*{message}"):
        check_image(image)
    with pytest.raises(ValueError, match=r"^image: "):
        restore_image(model, image, task="derain")


def test_images_at_the_ends_of_the_range_are_taken():
    check_image(np.zeros((1, 1, 3), np.float32))
    check_image(np.ones((2, 5, 3), np.float32))
