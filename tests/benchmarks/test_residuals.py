"""Measures of damage, on damage whose answer is known."""

import cv2
import numpy as np
import pytest

from benchmarks.residuals import (
    blob_sizes,
    contrast_kept,
    orientation,
    power_ratio,
    residual_histogram,
    residual_spectrum,
)


def noise(seed: int, sigma: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, (256, 256, 3)).astype(np.float32)


@pytest.fixture
def clean() -> np.ndarray:
    return 0.5 + noise(0, 0.1)


def test_the_histogram_is_a_density_with_the_residuals_spread(clean):
    levels, density = residual_histogram([(clean + noise(1, 10 / 255), clean)] * 2)
    assert density.sum() * 3 == pytest.approx(1)
    assert np.sqrt((density * 3 * levels**2).sum()) == pytest.approx(10, rel=0.03)
    assert (density * 3 * levels).sum() == pytest.approx(0, abs=0.2)


def test_a_brighter_picture_shifts_the_histogram_up(clean):
    levels, density = residual_histogram([(clean + 30 / 255, clean)])
    assert abs(levels[density.argmax()] - 30) <= 1.5


def test_white_noise_has_a_flat_spectrum_that_smoothing_bends(clean):
    frequency, power = residual_spectrum([(clean + noise(1), clean)])
    assert frequency[0] == pytest.approx(1 / 128)
    assert frequency[-1] < 0.5
    assert power[5:].max() < 2 * power[5:].min()
    smooth = cv2.GaussianBlur(noise(1), None, 2)
    _, bent = residual_spectrum([(clean + smooth, clean)])
    assert bent[-1] < 0.01 * bent[2]


def test_the_power_ratio_of_a_blur_is_its_transfer_function_squared(clean):
    sigma = 1.2
    frequency, ratio = power_ratio([(cv2.GaussianBlur(clean, None, sigma), clean)])
    expected = np.exp(-4 * np.pi**2 * sigma**2 * frequency**2)
    low = frequency < 0.2
    np.testing.assert_allclose(ratio[low], expected[low], rtol=0.15)
    np.testing.assert_allclose(power_ratio([(clean, clean)])[1], 1, rtol=1e-5)


@pytest.mark.parametrize("degrees", [0, 30, -45])
def test_streaks_are_found_in_their_direction(clean, degrees):
    streaks = np.zeros((256, 256, 3), np.float32)
    tilt = np.radians(degrees)  # counter-clockwise from straight down: the lower end lies to the right
    for x in range(16, 256, 24):
        for y in range(40, 256, 60):
            end = (round(x + 25 * np.sin(tilt)), round(y + 25 * np.cos(tilt)))
            cv2.line(streaks, (x, y), end, (1, 1, 1), 1, cv2.LINE_AA)
    angle, density = orientation([(clean + streaks, clean)])
    assert density.sum() * 5 == pytest.approx(1)
    assert abs(angle[density.argmax()] - degrees) <= 7.5


def test_haze_keeps_as_much_contrast_as_its_transmission(clean):
    kept, density = contrast_kept([(clean * 0.4 + 0.9 * 0.6, clean)])
    assert abs(kept[density.argmax()] - 0.4) < 0.05


def test_flakes_are_counted_by_their_size(clean):
    snow = np.zeros((256, 256, 3), np.float32)
    for x in (50, 150):
        cv2.circle(snow, (x, 60), 5, (1, 1, 1), -1)
    cv2.circle(snow, (120, 180), 20, (1, 1, 1), -1)
    diameter, share = blob_sizes([(clean + snow, clean)])
    assert len(diameter) == 3
    np.testing.assert_allclose(diameter, [11, 11, 41], atol=1)
    np.testing.assert_allclose(share[[1, 2]], [2 * 11**2 / (2 * 11**2 + 41**2), 1], rtol=0.1)
    assert blob_sizes([(clean, clean)])[0].size == 0
