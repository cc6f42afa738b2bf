"""Cuts: the same on both images, every place and turn, values untouched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.crops import TURNS, Cuts, cut_squares, draw_cuts


def coordinates(height: int, width: int) -> np.ndarray:
    """uint8 (1, H, W, 3) whose pixels say where they are: row, column and which side is up."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([y, x, 255 - y], axis=-1)[None]


def plainly(image: np.ndarray, top: int, left: int, turn: int, side: int) -> np.ndarray:
    """One square by slicing, numpy's own flip and quarter turns, (3, side, side)."""
    square = image[top : top + side, left : left + side]
    if turn >= 4:
        square = np.flip(square, 0)
    return np.rot90(square, turn % 4).transpose(2, 0, 1)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_squares_are_slices_turned_and_flipped(data):
    side, count = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    height, width = (side + data.draw(st.integers(0, 12)) for _ in range(2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = rng.integers(0, 256, (4, height, width, 3), np.uint8)
    before = images.copy()
    rows, cuts = rng.integers(0, 4, count), draw_cuts([rng], count, images.shape[1:], side)
    squares = cut_squares(images, rows, cuts, side)
    assert squares.shape == (count, 3, side, side)
    assert squares.dtype == np.uint8
    for square, row, top, left, turn in zip(squares, rows, cuts.top, cuts.left, cuts.turn, strict=True):
        np.testing.assert_array_equal(square, plainly(images[row], top, left, turn, side))
    squares[:] = 0
    np.testing.assert_array_equal(images, before)  # what was cut is nobody's but the caller's


def test_every_turn_at_every_place():
    """Of a tile that is not square, all cuts there are, in one call."""
    image, side = coordinates(5, 7), 3
    every = [(top, left, turn) for top in range(3) for left in range(5) for turn in range(TURNS)]
    squares = cut_squares(image, [0] * len(every), Cuts(*np.array(every).T), side)
    for square, (top, left, turn) in zip(squares, every, strict=True):
        np.testing.assert_array_equal(square, plainly(image[0], top, left, turn, side))
    assert len({square.tobytes() for square in squares}) == len(every)  # no two turns are the same


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 9), st.integers(0, 30))
def test_both_images_get_the_same_square_turned_alike(seed, crop, taller, wider):
    clean = coordinates(crop + taller, crop + wider)
    degraded = (clean * 0.5).astype(np.float32) / 255
    cuts = draw_cuts([np.random.default_rng(seed)], 1, clean.shape[1:], crop)
    (cut_degraded,), (cut_clean,) = cut_squares(degraded, [0], cuts, crop), cut_squares(clean, [0], cuts, crop)
    assert cut_degraded.shape == cut_clean.shape == (3, crop, crop)
    assert (cut_degraded.dtype, cut_clean.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(cut_degraded, (cut_clean * 0.5).astype(np.float32) / 255)
    rows, columns = np.unique(cut_clean[0]), np.unique(cut_clean[1])
    assert rows.tolist() == list(range(rows[0], rows[0] + crop))  # every pixel once: a square
    assert columns.tolist() == list(range(columns[0], columns[0] + crop))
    assert len(set(zip(cut_clean[0].ravel(), cut_clean[1].ravel(), strict=True))) == crop * crop


def test_the_generator_alone_decides():
    def drawn(*seeds: int, each: int = 3) -> np.ndarray:
        cuts = draw_cuts((np.random.default_rng(seed) for seed in seeds), each, (40, 30, 3), 8)
        return np.stack([cuts.top, cuts.left, cuts.turn], axis=1)

    np.testing.assert_array_equal(drawn(7, 2**32 - 1, 0), np.concatenate([drawn(7), drawn(2**32 - 1), drawn(0)]))
    assert not np.array_equal(drawn(1), drawn(2))


def test_places_flips_and_turns_are_equally_likely():
    cuts = draw_cuts([np.random.default_rng(0)], 8000, (7, 8, 3), 4)
    for values, count in ((cuts.top, 4), (cuts.left, 5), (cuts.turn, 8)):
        shares = np.bincount(values, minlength=count) / 8000
        assert len(shares) == count
        np.testing.assert_allclose(shares, 1 / count, atol=0.025)


def test_cuts_are_picked_by_their_places():
    cuts = draw_cuts([np.random.default_rng(0)], 9, (20, 30, 3), 8)
    picked = cuts[[4, 4, 0]]
    for name in ("top", "left", "turn"):
        np.testing.assert_array_equal(getattr(picked, name), getattr(cuts, name)[[4, 4, 0]])


@pytest.mark.parametrize("size", [(4, 12), (12, 4), (1, 1)])
def test_images_smaller_than_the_crop_are_refused(size):
    message = f"^crop: expected images of at least 5 x 5 pixels, got {size[0]} x {size[1]}$"
    with pytest.raises(ValueError, match=message):
        draw_cuts([np.random.default_rng(0)], 1, (*size, 3), 5)


def test_an_image_of_the_size_of_the_crop_is_taken_whole():
    image = coordinates(6, 6)
    cuts = draw_cuts([np.random.default_rng(1)], 40, image.shape[1:], 6)
    assert set(cuts.top) == set(cuts.left) == {0}
    squares = cut_squares(image, [0] * 40, cuts, 6)
    assert len({square.tobytes() for square in squares}) == TURNS
    for square in squares:
        assert set(map(tuple, square.reshape(3, -1).T)) == set(map(tuple, image.reshape(-1, 3)))
