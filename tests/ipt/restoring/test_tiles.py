"""Overlapping tiles: the same result as of the whole picture, no seams, and the memory of one row of tiles."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ipt.pixels import from_unit, to_unit
from ipt.restoring.tiles import BLEND, restore_in_tiles, spans, weights

DTYPES = (np.uint8, np.uint16, np.float32)
SIDES = st.integers(1, 160)
REACHES, MORES = st.integers(0, 20), st.integers(0, 60)


@st.composite
def cuts(draw, reaches=REACHES, mores=MORES):
    """A side of tiles that is large enough for what an output pixel sees, and for the multiples they begin at."""
    reach, multiple = draw(reaches), draw(st.sampled_from([1, 2, 3, 4, 8]))
    return {"tile": 2 * reach + BLEND + multiple + draw(mores), "reach": reach, "multiple": multiple}


def random_image(height, width, dtype=np.float32):
    return from_unit(np.random.default_rng(0).random((height, width, 3), np.float32), dtype)


def largest_difference(image, other):
    """In levels, or, for float32, in grey levels of 8 bits."""
    assert image.dtype == other.dtype
    return np.abs(image.astype(float) - other).max() * (255 if image.dtype == np.float32 else 1)


def convolutions(layers=3):
    """Random 3 x 3 convolutions: so many pixels to each side are seen."""
    torch.manual_seed(0)
    between = [part for _ in range(layers - 2) for part in (nn.Conv2d(6, 6, 3, padding=1), nn.GELU())]
    stack = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), *between, nn.Conv2d(6, 3, 3, padding=1))
    for parameter in stack.parameters():
        nn.init.normal_(parameter, std=0.5)

    @torch.inference_mode()
    def restore(part):
        restored = stack(torch.from_numpy(part).permute(2, 0, 1)[None])
        return (restored[0] / 4).sigmoid().permute(1, 2, 0).numpy()

    return restore


def block_means(multiple):
    """Each pixel becomes the mean of its block of `multiple` pixels: blocks have to be cut out whole."""

    def restore(part):
        height, width = part.shape[:2]
        padded = np.pad(part, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
        rows, columns = padded.shape[0] // multiple, padded.shape[1] // multiple
        means = padded.reshape(rows, multiple, columns, multiple, 3).mean((1, 3))
        return means.repeat(multiple, 0).repeat(multiple, 1)[:height, :width]

    return restore


@settings(deadline=None, max_examples=40)
@given(SIDES, SIDES, st.sampled_from(DTYPES), cuts(st.just(3), st.integers(15, 60)))
def test_tiled_equals_whole_for_a_network_that_sees_no_further_than_reach(height, width, dtype, cut):
    image, restore = random_image(height, width, dtype), convolutions()
    tiled = restore_in_tiles(image, restore, **cut)
    whole = from_unit(restore(to_unit(image)), dtype)
    assert tiled.shape == image.shape
    assert largest_difference(tiled, whole) <= 1
    if dtype == np.float32:
        np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_tiled_is_not_whole_for_a_network_that_sees_further_than_reach():
    """So the test above would notice a pixel that is used too near to a cut."""
    image, restore = random_image(120, 1), convolutions(40)
    tiled = restore_in_tiles(image, restore, tile=40, reach=2, multiple=1)
    assert np.abs(tiled - restore(image)).max() > 0.01


@settings(deadline=None, max_examples=30)
@given(SIDES, SIDES, st.sampled_from([2, 3, 8]), st.integers(0, 60))
def test_tiles_begin_where_blocks_of_the_network_do(height, width, multiple, more):
    image, restore = random_image(height, width), block_means(multiple)
    tile = 2 * multiple + BLEND + multiple + more
    tiled = restore_in_tiles(image, restore, tile=tile, reach=multiple, multiple=multiple)
    np.testing.assert_allclose(tiled, restore(image), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.sampled_from(DTYPES), cuts())
def test_what_is_not_changed_comes_back_and_no_more_is_looked_at_than_a_tile(height, width, dtype, cut):
    image = random_image(height, width, dtype)
    before, shapes = image.copy(), []

    def look(part):
        assert part.dtype == np.float32
        assert 0 <= part.min() <= part.max() <= 1
        shapes.append(part.shape)
        return part

    same = restore_in_tiles(image, look, **cut)
    assert same.dtype == image.dtype
    if dtype == np.float32:
        np.testing.assert_allclose(same, image, atol=3e-6)  # blending rounds: 1.2e-6 was seen
    else:
        assert np.array_equal(same, image)
    assert np.array_equal(image, before)
    assert not np.shares_memory(same, image)
    assert all(max(shape[:2]) <= cut["tile"] and shape[2] == 3 for shape in shapes)
    if max(height, width) <= cut["tile"]:
        assert shapes == [image.shape]


def test_tiles_are_cut_out_where_spans_say_a_row_of_them_after_the_other():
    places = np.zeros((150, 170, 3), np.float32)
    places[..., 0], places[..., 1] = np.arange(150)[:, None] / 1024, np.arange(170) / 1024
    seen = []

    def look(part):
        corners = part[[0, -1], [0, -1], :2] * 1024
        seen.append(tuple(map(tuple, corners.astype(int).tolist())))
        return part

    restore_in_tiles(places, look, tile=64, reach=3, multiple=8)
    rows, columns = spans(150, 64, 3, 8), spans(170, 64, 3, 8)
    assert len(rows) > 2
    assert len(columns) > 2
    assert seen == [((t, le), (b - 1, r - 1)) for (t, b), (le, r) in itertools.product(rows, columns)]


@given(st.integers(1, 500), cuts())
def test_spans_cover_a_length_from_multiples_on(length, cut):
    tiles = spans(length, cut["tile"], cut["reach"], cut["multiple"])
    assert tiles[0][0] == 0
    assert tiles[-1][1] == length
    assert all(start % cut["multiple"] == 0 and 0 < stop - start <= cut["tile"] for start, stop in tiles)
    assert all(stop == start + cut["tile"] for start, stop in tiles[:-1])
    for (first, stop), (start, last) in itertools.pairwise(tiles):
        assert first < start
        assert stop < last
        assert stop - start >= 2 * cut["reach"] + BLEND
    if length <= cut["tile"]:
        assert tiles == [(0, length)]


@given(st.integers(1, 500), cuts())
def test_weights_are_one_in_all_and_nothing_near_a_cut(length, cut):
    tiles = spans(length, cut["tile"], cut["reach"], cut["multiple"])
    total = np.zeros(length)
    for (start, stop), weight in zip(tiles, weights(tiles, cut["reach"]), strict=True):
        assert weight.shape == (stop - start,)
        assert 0 <= weight.min() <= weight.max() <= 1
        if start > 0:
            assert not weight[: cut["reach"]].any()
        if stop < length:
            assert not weight[len(weight) - cut["reach"] :].any()
        total[start:stop] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.sampled_from(DTYPES), cuts(st.integers(1, 20)))
def test_pixels_near_a_cut_are_not_used(height, width, dtype, cut):
    """A function that is wrong near every border of what it is given is wrong near those of the picture only."""
    image, reach = random_image(height, width, dtype), cut["reach"]

    def wrong_at_borders(part):
        wrong = np.full_like(part, 9)
        wrong[reach:-reach, reach:-reach] = part[reach:-reach, reach:-reach]
        return wrong

    inside = restore_in_tiles(image, wrong_at_borders, **cut)[reach:-reach, reach:-reach]
    if inside.size:
        assert largest_difference(inside, image[reach:-reach, reach:-reach]) < 0.01


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, cuts(), st.integers(0, 9))
def test_tiles_that_disagree_meet_in_a_ramp(height, width, cut, seed):
    """However tiles disagree, a step from pixel to pixel is a small part of what they disagree by."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    blended = restore_in_tiles(image, lambda part: part + rng.integers(2), **cut)
    assert blended.min() >= 0
    assert blended.max() <= 1
    # A smooth ramp is at most half as steep again as a straight one; where more than two tiles meet, two change.
    step = (cut["tile"] - 2 * cut["reach"] - BLEND) // cut["multiple"] * cut["multiple"]
    limit = (1.5 if 2 * step >= cut["tile"] else 2.3) / BLEND + 1e-6
    assert all(np.abs(np.diff(blended, axis=axis)).max(initial=0) <= limit for axis in (0, 1))


def test_two_tiles_give_way_to_one_another_over_the_blend():
    calls = iter(range(2))
    blended = restore_in_tiles(
        np.zeros((8, 100, 3), np.float32), lambda part: part + next(calls), tile=80, reach=4, multiple=8
    )
    across = blended[0, :, 0]  # the second begins at 40
    assert (blended == across[None, :, None]).all()
    assert (across[:44] == 0).all()
    assert ((across[45:75] > 0) & (across[45:75] < 1)).all()
    assert (across[76:] == 1).all()
    steps = np.diff(across)
    assert (steps >= 0).all()
    assert steps.max() <= 1.5 / BLEND
    assert np.abs(np.diff(steps)).max() < 0.01  # smooth: it does not bend sharply either


@pytest.mark.parametrize(("reach", "multiple"), [(0, 1), (3, 8), (52, 8)])
def test_a_tile_that_is_too_small_is_refused(reach, multiple):
    image, smallest = random_image(1, 400), 2 * reach + BLEND + multiple
    restore_in_tiles(image, lambda part: part, tile=smallest, reach=reach, multiple=multiple)
    message = f"tile: expected at least {smallest} pixels for a network that sees {reach} pixels to each side, got "
    for tile in (smallest - 1, multiple, 0, -5):
        for turned in (image, image.swapaxes(0, 1)):
            with pytest.raises(ValueError, match=f"^{re.escape(message + str(tile))}$"):
                restore_in_tiles(turned, lambda part: part, tile=tile, reach=reach, multiple=multiple)
    small = image[:, : smallest - 1]  # is one tile, so nothing is shared
    np.testing.assert_allclose(
        restore_in_tiles(small, lambda part: part, tile=smallest - 1, reach=reach, multiple=multiple), small
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_that_of_the_result_and_one_row_of_tiles(dtype):
    image = random_image(3000, 200, dtype)
    row = 80 * 200 * 3 * 4
    tracemalloc.start()
    try:
        restore_in_tiles(image, lambda part: part, tile=80, reach=4, multiple=8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < image.nbytes + 6 * row
    assert 6 * row < image.size * 4 / 5  # the whole picture as float32 would be noticed
