"""PNG for people: an ordinary file, exact for 8-bit images."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.png import encode_png


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), -1)[..., ::-1]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_8_bit_images_come_back_exactly(height, width, seed):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for image in (levels, levels.astype(np.float32) / 255):
        np.testing.assert_array_equal(decoded(encode_png(image)), levels)


def test_other_images_come_back_up_to_rounding_and_clipping():
    image = np.random.default_rng(0).random((9, 7, 3), np.float32) * 1.4 - 0.2
    assert np.abs(decoded(encode_png(image)) / 255 - np.clip(image, 0, 1)).max() <= 0.5 / 255 + 1e-6


def test_the_file_is_an_ordinary_rgb_png():
    levels = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    data = encode_png(levels)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decoded(data), levels)


def test_what_is_no_image_is_refused():
    with pytest.raises((ValueError, cv2.error)):
        encode_png(np.zeros((0, 4, 3), np.uint8))
