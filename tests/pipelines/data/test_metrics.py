"""PSNR and SSIM against scikit-image, on 8-bit rounded images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ipt.pixels import to_levels
from pipelines.data.metrics import psnr, ssim


@pytest.fixture(params=[(11, 11), (32, 17)])
def pair(request):
    rng = np.random.default_rng(0)
    clean = rng.random((*request.param, 3), np.float32)
    image = np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
    return image, clean


def test_psnr_is_that_of_the_8_bit_images(pair):
    levels = [np.rint(image * 255).astype(np.uint8) for image in pair]
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(levels[1], levels[0]), abs=1e-9)
    assert psnr(*levels) == psnr(*pair) == psnr(*pair[::-1])


def test_ssim_is_wang_2004_on_the_8_bit_images(pair):
    levels = [np.rint(image * 255).astype(np.uint8) for image in pair]
    channels = [
        structural_similarity(
            levels[0][..., c], levels[1][..., c], data_range=255, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False,
        )
        for c in range(3)
    ]  # fmt: skip
    assert ssim(*pair) == pytest.approx(np.mean(channels), abs=1e-6)  # computed in float32


def test_identical_images_have_psnr_100_and_ssim_1(pair):
    assert psnr(pair[0], pair[0]) == 100
    assert ssim(pair[0], pair[0]) == 1


def test_differences_below_half_a_grey_level_do_not_count(pair):
    levels = to_levels(pair[1]).astype(np.float32) / 255
    assert psnr(levels + np.float32(0.4 / 255), levels) == 100
    assert psnr(levels + np.float32(0.6 / 255), levels) < 100


@settings(deadline=None)
@given(st.integers(1, 255), st.integers(0, 255))
def test_psnr_of_a_constant_error_follows_the_formula(error, level):
    other = level + error if level + error <= 255 else level - error
    if other < 0:
        return
    images = [np.full((2, 3, 3), value / 255, np.float32) for value in (level, other)]
    assert psnr(*images) == pytest.approx(20 * np.log10(255 / error))


def test_ssim_of_images_below_11_pixels_is_refused():
    small = np.zeros((10, 11, 3), np.float32)
    with pytest.raises(ValueError, match="win_size"):
        ssim(small, small)


def test_levels_are_rounded_clipped_and_kept():
    image = np.array([[[-1.0, 0.0, 1.4 / 255]], [[1.6 / 255, 1.0, 7.0]]], np.float32)
    assert to_levels(image).tolist() == [[[0, 0, 1]], [[2, 255, 255]]]
    assert to_levels(image).dtype == np.uint8
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(to_levels(levels), levels)
    assert np.array_equal(to_levels(levels / np.float32(255)), levels)
