"""The training set of the usefulness test: endless, seeded, every photograph equally often."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

import degradations
from benchmarks.degradations import COUNTERPARTS
from benchmarks.usefulness import BATCH, TILE, Source, batches, clean_tile, make_batch, make_pair

RECIPE = [{"GaussianNoise": {"sigma": [20, 20]}}]


@pytest.fixture
def photographs(tmp_path):
    """Flat pictures, each of its own brightness; the last is smaller than a tile."""
    files = []
    for number in range(BATCH):
        side = 60 if number == BATCH - 1 else 150
        files.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(files[-1]), np.full((side, side, 3), 40 + 20 * number, np.uint8))
    return files


@pytest.fixture
def source(photographs):
    return Source(photographs, "denoise", RECIPE, (1.0, 2.0), 32)


def test_a_batch_is_the_same_every_time_and_differs_from_the_next(source):
    one, again, other = (make_batch(source, number) for number in (3, 3, 4))
    assert one.shape == (BATCH, 2, 3, 32, 32)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_batches_are_made_in_turn(source):
    with ThreadPoolExecutor(1) as pool:
        made = batches(pool, source)
        for number in range(3):
            batch, expected = next(made), make_batch(source, number).astype(np.float32) / 255
            np.testing.assert_array_equal(batch.degraded.numpy(), expected[:, 0])
            np.testing.assert_array_equal(batch.clean.numpy(), expected[:, 1])
            assert batch.index.tolist() == [0] * BATCH


def test_every_photograph_once_in_each_pass(source):
    for number in range(3):
        clean = make_batch(source, number)[:, 1]
        assert sorted(clean[:, 0, 0, 0]) == [40 + 20 * step for step in range(BATCH)]


def test_a_pair_is_degraded_as_the_recipe_says(source):
    degraded, clean = make_pair(replace(source, crop=64), source.files[2], 7).astype(float)
    assert clean.std() == 0
    assert (degraded - clean).std() == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(("size", "factor"), [((200, 300), 1.0), ((200, 300), 2.3), ((70, 90), 1.0), ((128, 128), 1.0)])
def test_a_tile_of_any_photograph_has_its_size(size, factor):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    tile = clean_tile(photo, factor, np.random.default_rng(1))
    assert tile.shape == (TILE, TILE, 3)
    assert 0 <= tile.min() <= tile.max() <= 1
    if factor == 1 and min(size) >= TILE:  # cut, not resampled
        assert np.isin((tile * 255).round().astype(int)[0, 0], photo).all()
        np.testing.assert_allclose(tile * 255, (tile * 255).round(), atol=1e-4)


def test_every_degradation_is_timed_beside_a_counterpart():
    assert set(COUNTERPARTS) == set(degradations.__all__)
