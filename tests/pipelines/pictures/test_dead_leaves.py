"""Procedural pictures: the contract, and the statistics that photographs have."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.pictures.dead_leaves import draw_dead_leaves
from pipelines.pictures.leaf_shapes import SHAPES, draw_mask, draw_shape
from pipelines.pictures.leaf_textures import TEXTURES, draw_texture, fractal


@pytest.fixture(scope="module")
def pictures():
    return [draw_dead_leaves(np.random.default_rng((7, index)), 256) for index in range(12)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(16, 150))
def test_any_seed_and_size_gives_an_image(seed, size):
    image = draw_dead_leaves(np.random.default_rng(seed), size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1


def test_equal_seeds_give_equal_pictures():
    first, again, other = (draw_dead_leaves(np.random.default_rng(s), 96) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_small_a_picture_is_an_error():
    with pytest.raises(ValueError, match="16 pixels or more, got 15"):
        draw_dead_leaves(np.random.default_rng(0), 15)


def test_gradients_are_as_sparse_as_those_of_photographs(pictures):
    gray = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    steps = np.concatenate([np.diff(g, axis=1).ravel() for g in gray])
    kurtosis = (steps**4).mean() / (steps**2).mean() ** 2
    assert 8 < kurtosis < 80  # noise: 3; measured on photographs: 16 to 60


def test_spectrum_falls_as_that_of_photographs(pictures):
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    middle = (frequency > 0.03) & (frequency < 0.35)
    window = np.hanning(256)[:, None] * np.hanning(256)
    slopes = []
    for picture in pictures:
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        power = np.abs(np.fft.rfft2((gray - gray.mean()) * window)) ** 2 + 1e-9
        slopes.append(np.polyfit(np.log(frequency[middle]), np.log(power[middle]), 1)[0])
    assert -3.6 < np.median(slopes) < -1.8  # measured on photographs: -2.2 to -3.4


def test_brightness_varies_and_colours_are_mostly_muted(pictures):
    means = [p.mean() for p in pictures]
    assert max(means) - min(means) > 0.2
    assert 0.3 < np.mean(means) < 0.6
    saturation = [float(np.ptp(p, axis=2).mean()) for p in pictures]
    assert 0.03 < np.median(saturation) < 0.3


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_covers_something_near_its_place(shape):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows, columns, coverage = draw_mask(draw_shape(rng, shape, 20.0), (64, 48), 128)
        assert coverage.dtype == np.float32
        assert coverage.shape == (rows.stop - rows.start, columns.stop - columns.start)
        assert 0 <= coverage.min() <= coverage.max() <= 1
        assert 30 < coverage.sum() < 4 * np.pi * 20**2
        assert rows.start <= 48 < rows.stop
        assert columns.start <= 64 < columns.stop


def test_a_leaf_outside_the_picture_has_no_mask():
    shape = draw_shape(np.random.default_rng(0), "ellipse", 5.0)
    assert draw_mask(shape, (-50, 20), 64) is None


def test_edges_are_antialiased():
    shape = draw_shape(np.random.default_rng(0), "ellipse", 20.0)
    coverage = draw_mask(shape, (32, 32), 64)[2]
    assert ((coverage > 0.1) & (coverage < 0.9)).sum() > 40


@pytest.mark.parametrize("kind", TEXTURES)
def test_every_texture_has_mean_0_and_deviation_1(kind):
    for seed in range(3):
        field = draw_texture(np.random.default_rng(seed), kind, 96)
        assert field.shape == (96, 96)
        assert field.dtype == np.float32
        assert abs(field.mean()) < 1e-3
        assert abs(field.std() - 1) < 1e-3


def test_fractal_spectrum_has_the_slope_asked_for():
    field = fractal(np.random.default_rng(0), 256, 1.2)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    inside = (frequency > 0.02) & (frequency < 0.4)
    power = np.abs(np.fft.rfft2(field))[inside] ** 2
    slope = np.polyfit(np.log(frequency[inside]), np.log(power), 1)[0]
    assert abs(slope / 2 + 1.2) < 0.1


def test_unknown_names_are_errors():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="shape: expected one of ellipse"):
        draw_shape(rng, "cube", 5.0)
    with pytest.raises(ValueError, match="kind: expected one of fractal"):
        draw_texture(rng, "velvet", 32)
