"""Pair geometry: the same on both images, decided by the seed alone, values untouched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.crops import PairCrop


def coordinates(height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3) whose pixels say where they are: row, column and which side is up."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([y, x, 255 - y], axis=-1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 9), st.integers(0, 30))
def test_both_images_get_the_same_square_turned_alike(seed, crop, taller, wider):
    clean = coordinates(crop + taller, crop + wider)
    degraded = (clean * 0.5).astype(np.float32) / 255
    cut_degraded, cut_clean = PairCrop(crop)(degraded, clean, seed)
    assert cut_degraded.shape == cut_clean.shape == (crop, crop, 3)
    assert (cut_degraded.dtype, cut_clean.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(cut_degraded, (cut_clean * 0.5).astype(np.float32) / 255)
    rows, columns = np.unique(cut_clean[..., 0]), np.unique(cut_clean[..., 1])
    assert rows.tolist() == list(range(rows[0], rows[0] + crop))  # every pixel once: a square
    assert columns.tolist() == list(range(columns[0], columns[0] + crop))
    assert len({tuple(pixel) for pixel in cut_clean.reshape(-1, 3)}) == crop * crop


def test_the_seed_alone_decides():
    pair = coordinates(40, 30), coordinates(40, 30)
    used, fresh = PairCrop(8), PairCrop(8)
    for seed in (1, 2, 3):
        used(*pair, seed)
    for seed in (7, 2**32 - 1, 0):
        np.testing.assert_array_equal(used(*pair, seed)[0], fresh(*pair, seed)[0])
    other = coordinates(40, 30).astype(np.float32)
    np.testing.assert_array_equal(fresh(other, pair[1], 5)[0], used(*pair, 5)[0])


def test_places_flips_and_turns_all_occur():
    pair, cut = (coordinates(12, 12), coordinates(12, 12)), PairCrop(4)
    places, turns = set(), set()
    for seed in range(300):
        square = cut(*pair, seed)[1].astype(int)
        places.add((square[..., 0].min(), square[..., 1].min()))
        down, right = square[1, 0] - square[0, 0], square[0, 1] - square[0, 0]
        turns.add((*down[:2], *right[:2]))
    assert len(turns) == 8
    assert len(places) > 60  # of 81


def test_the_inputs_are_left_alone():
    pair = coordinates(12, 9), coordinates(12, 9)
    before = [image.copy() for image in pair]
    cut = PairCrop(5)(*pair, 3)
    for image in cut:
        image[:] = 0
    for image, old in zip(pair, before, strict=True):
        np.testing.assert_array_equal(image, old)


@pytest.mark.parametrize("sizes", [((12, 12), (12, 13)), ((12, 12), (11, 12)), ((20, 12), (12, 20))])
def test_images_of_unequal_size_are_refused(sizes):
    with pytest.raises(ValueError, match="expected two images of equal size, at least 5 x 5"):
        PairCrop(5)(coordinates(*sizes[0]), coordinates(*sizes[1]), 0)


@pytest.mark.parametrize("size", [(4, 12), (12, 4), (1, 1)])
def test_images_smaller_than_the_crop_are_refused(size):
    with pytest.raises(ValueError, match=r"(?i)crop"):
        PairCrop(5)(coordinates(*size), coordinates(*size), 0)


def test_an_image_of_the_size_of_the_crop_is_taken_whole():
    image = coordinates(6, 6)
    assert set(map(tuple, PairCrop(6)(image, image, 1)[0].reshape(-1, 3))) == set(map(tuple, image.reshape(-1, 3)))
