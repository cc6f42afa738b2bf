"""Pixel values: levels to float32 and back, and what lies between and beyond levels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ipt.pixels import LEVELS, from_unit, to_unit


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_comes_back(dtype):
    levels = np.arange(LEVELS[np.dtype(dtype)] + 1).astype(dtype)
    unit = to_unit(levels)
    assert unit.dtype == np.float32
    assert (unit[0], unit[-1]) == (0, 1)
    np.testing.assert_allclose(np.diff(unit), 1 / levels[-1], rtol=0.02)
    back = from_unit(unit, dtype)
    assert back.dtype == dtype
    assert np.array_equal(back, levels)


def test_a_picture_means_the_same_with_8_and_with_16_bits():
    levels = np.arange(256)
    np.testing.assert_allclose(to_unit(levels.astype(np.uint8)), to_unit((257 * levels).astype(np.uint16)), atol=1e-7)


@given(arrays(np.float32, array_shapes(), elements=st.floats(-2, 3, width=32)), st.sampled_from([*LEVELS]))
def test_values_are_clipped_and_rounded_to_the_nearest_level(image, dtype):
    before = image.copy()
    levels = from_unit(image, dtype)
    assert (levels.dtype, levels.shape) == (dtype, image.shape)
    assert np.abs(levels - np.clip(image.astype(float), 0, 1) * LEVELS[dtype]).max() <= 0.51  # float32 at 65535: 0.004
    assert np.array_equal(image, before)


@given(arrays(np.float32, array_shapes(), elements=st.floats(-2, 3, width=32)))
def test_float32_is_clipped_and_stays_float32(image):
    clipped = from_unit(image, np.float32)
    assert clipped.dtype == np.float32
    assert np.array_equal(clipped, np.minimum(np.maximum(image, 0), 1))
    assert np.array_equal(to_unit(clipped), clipped)
    assert np.array_equal(from_unit(to_unit(clipped), np.dtype(np.float32)), clipped)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_views_of_any_kind_become_arrays_that_torch_takes(dtype):
    image = from_unit(np.random.default_rng(0).random((4, 5, 3), np.float32), dtype)
    image.flags.writeable = False
    for view in (image, image[::-1], image[:, ::-1], image[..., ::-1], image[1:3, 2:4]):
        unit = to_unit(view)
        assert unit.flags.writeable
        assert np.array_equal(torch.from_numpy(unit).numpy(), to_unit(view.copy()))
