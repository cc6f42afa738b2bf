"""Image to task: what is looked at, how evidence adds up, what training and caution do."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipt.pixels import from_unit, to_unit
from ipt.understanding import estimator as estimator_module
from ipt.understanding.estimator import (
    SMALLEST,
    TILE,
    TILES,
    Estimator,
    estimate,
    for_more_tasks,
    look_at,
    train_estimator,
    trust_clean,
)
from ipt.understanding.texture import texture

DTYPES = (np.uint8, np.uint16, np.float32)


def random_image(height, width, dtype=np.float32, seed=0):
    return from_unit(np.random.default_rng(seed).random((height, width, 3), np.float32), dtype)


@pytest.fixture
def filled(fill_parameters):
    """An estimator with opinions on two tasks and clean, none of them strong."""
    return fill_parameters(Estimator(2).eval(), 0, 0.1)


@pytest.mark.parametrize("tasks", [1, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (300, 270)])
def test_untrained_it_takes_everything_to_be_as_likely(tasks, size):
    probabilities = estimate(Estimator(tasks).eval(), random_image(*size))
    torch.testing.assert_close(probabilities, torch.full((tasks + 1,), 1 / (tasks + 1)))


def test_probabilities_are_of_each_task_and_clean_for_any_size_and_dtype(filled):
    @settings(deadline=None, max_examples=25)
    @given(st.integers(1, 150), st.integers(1, 150), st.sampled_from(DTYPES))
    def are_probabilities(height, width, dtype):
        image = random_image(height, width, dtype)
        before = image.copy()
        probabilities = estimate(filled, image)
        assert probabilities.shape == (3,)
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert not probabilities.requires_grad
        assert np.array_equal(image, before)
        assert torch.equal(estimate(filled, to_unit(image)), probabilities)

    are_probabilities()


def test_a_picture_in_reversed_order_is_seen_too(filled):
    image = random_image(40, 30)
    for view in (image[::-1], image[:, ::-1], image[..., ::-1]):
        assert torch.equal(estimate(filled, view), estimate(filled, view.copy()))


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (15, 16)])
def test_a_smaller_picture_is_enlarged_by_repeating_its_edge(filled, size):
    image = random_image(*size)
    height, width = max(size[0], SMALLEST), max(size[1], SMALLEST)
    rows, columns = np.arange(height).clip(max=size[0] - 1), np.arange(width).clip(max=size[1] - 1)
    (tile,) = look_at(image)
    assert np.array_equal(tile, image[rows][:, columns])
    assert torch.equal(estimate(filled, image), estimate(filled, image[rows][:, columns]))


@pytest.mark.parametrize("size", [(16, 16), (100, 30), (128, 128)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_small_picture_is_looked_at_whole(size, dtype):
    image = random_image(*size, dtype)
    (tile,) = look_at(image)
    assert tile.dtype == np.float32
    assert np.array_equal(tile, to_unit(image))


@settings(deadline=None)
@given(st.integers(1, 1500), st.integers(1, 1500), st.booleans())
def test_what_is_looked_at_is_bounded_and_spread_evenly(height, width, whole):
    grid = np.stack(np.broadcast_arrays(np.arange(height)[:, None], np.arange(width), 0), -1)
    tiles = look_at((grid / 2048).astype(np.float32) if whole else grid.astype(np.uint16))
    scale = 2048 if whole else 65535
    assert 1 <= len(tiles) <= TILES
    sides = [min(max(length, SMALLEST), TILE) for length in (height, width)]
    assert all(tile.shape == (*sides, 3) and tile.dtype == np.float32 for tile in tiles)
    tops, lefts = (sorted({round(float(tile[0, 0, axis]) * scale) for tile in tiles}) for axis in (0, 1))
    assert len(tiles) == len(tops) * len(lefts)
    for starts, length in ((tops, height), (lefts, width)):
        gaps = np.diff(starts)
        if len(gaps):
            assert starts[0] == 0
            assert starts[-1] == length - TILE  # up to the far end
            assert gaps.min() >= TILE  # nothing twice
            assert gaps.max() - gaps.min() <= 1
        else:
            assert starts[0] == max(length - TILE, 0) // 2  # in the middle


def test_a_large_square_is_looked_at_in_16_places():
    assert len(look_at(random_image(512, 512, np.uint8))) == TILES == 16


@pytest.mark.parametrize("size", [(4000, 20), (20, 4000), (4000, 256), (256, 4000)])
def test_a_long_picture_is_looked_at_in_no_more_places(size):
    assert 4 <= len(look_at(np.zeros((*size, 3), np.uint8))) <= TILES


def test_more_tiles_are_more_evidence_but_less_than_of_other_pictures(filled):
    tile = random_image(128, 128)

    def lead(image):
        logarithms = estimate(filled, image).log()
        return (logarithms[0] - logarithms[1]).item()

    alone, two, sixteen = (lead(np.tile(tile, (n, m, 1))) for n, m in ((1, 1), (1, 2), (4, 4)))
    assert abs(alone) > 0.01
    assert 1 < two / alone < 2
    assert two / alone < sixteen / alone < 16
    assert sixteen / alone == pytest.approx((two / alone) ** 4, rel=1e-2)  # a power of their number


def test_tiles_of_a_picture_count_alike(filled):
    tiles = [random_image(128, 128, seed=seed) ** power for seed, power in ((1, 1), (2, 3))]
    together = [estimate(filled, np.concatenate(order, 1)) for order in (tiles, tiles[::-1])]
    torch.testing.assert_close(*together)


def test_caution_is_added_to_the_score_of_clean(filled):
    image = random_image(300, 300)
    before = estimate(filled, image).log()
    filled.caution += 1.5
    after = estimate(filled, image).log()
    assert (after[2] - after[0]) - (before[2] - before[0]) == pytest.approx(1.5, abs=1e-4)
    assert (after[1] - after[0]).item() == pytest.approx((before[1] - before[0]).item(), abs=1e-4)


def test_for_more_tasks_it_says_the_same_and_never_another(filled):
    estimator = filled
    wider = for_more_tasks(estimator, [3, 1], 4)
    image = random_image(70, 60)
    before, after = estimate(estimator, image), estimate(wider, image)
    torch.testing.assert_close(after[[3, 1, 4]], before)
    assert after[[0, 2]].tolist() == [0, 0]
    assert wider.width == estimator.width
    assert all(value.half().isfinite().all() for value in wider.state_dict().values())


def test_forward_scores_the_texture_of_each_tile_of_a_batch(filled):
    tiles = torch.rand(3, 3, 20, 30)
    logits = filled(tiles)
    assert logits.shape == (3, 3)
    assert torch.equal(logits, filled.logits(texture(tiles)))


def test_a_statistic_that_is_far_out_counts_no_more_than_5_spreads(filled):
    usual = torch.zeros(1, len(filled.mean))
    filled.spread.fill_(0.5)
    far, further, near = usual.clone(), usual.clone(), usual.clone()
    near[0, 3], far[0, 3], further[0, 3] = 2, 3, 1e6
    assert torch.equal(filled.logits(far), filled.logits(further))
    assert not torch.equal(filled.logits(far), filled.logits(near))


def toy(count=300):
    """Statistics of which some give the class away, at a scale of their own."""
    statistics = 3 + 0.1 * torch.randn(count, len(Estimator(2).mean))
    labels = torch.randint(3, (count,))
    statistics[:, 5] = 7  # says nothing and has no spread
    for label in range(3):
        statistics[labels == label, 20 * label + 10 : 20 * label + 30] += 1
    return statistics, labels


def test_training_learns_what_can_be_learnt():
    statistics, labels = toy()
    estimator = Estimator(2).train()
    losses = list(train_estimator(estimator, statistics[:200], labels[:200], 60, 32))
    assert len(losses) == 60
    assert losses[0] == pytest.approx(math.log(3), abs=1e-3)
    assert np.mean(losses[-10:]) < 0.4
    assert (estimator.eval().logits(statistics[200:]).argmax(1) == labels[200:]).float().mean() > 0.97


def test_training_tells_pictures_apart():
    noisy = [np.clip(0.5 + 0.2 * random_image(40, 40, seed=s), 0, 1) for s in range(24)]
    smooth = [np.broadcast_to(random_image(1, 40, seed=s).cumsum(1) / 40, (40, 40, 3)) for s in range(24)]
    images = [image.astype(np.float32) for image in (*noisy, *smooth)]
    tiles = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    labels = torch.tensor([0] * 24 + [1] * 24)
    estimator = Estimator(1)
    chosen = torch.arange(48) % 24 < 16
    for _ in train_estimator(estimator, texture(tiles[chosen]), labels[chosen], 40, 32):
        pass
    estimator.eval()
    assert [int(estimate(estimator, images[n]).argmax()) for n in range(48) if not chosen[n]] == [0] * 8 + [1] * 8


def test_training_changes_the_estimator_and_nothing_else():
    statistics, labels = toy(40)
    given_statistics, given_labels = statistics.clone(), labels.clone()
    weights = []
    for mode in (True, True, False):
        torch.manual_seed(5)
        estimator = Estimator(2).train(mode)
        before = {name: value.clone() for name, value in estimator.state_dict().items()}
        assert len(list(train_estimator(estimator, statistics, labels, 3, 8))) == 3
        assert estimator.training == mode
        assert torch.is_grad_enabled()
        assert estimator.caution == 0
        changed = {name for name, value in estimator.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == set(before) - {"caution"}
        weights.append(estimator.state_dict())
    assert torch.equal(statistics, given_statistics)
    assert torch.equal(labels, given_labels)
    assert not statistics.requires_grad
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])  # nothing left of the first time
    torch.testing.assert_close(estimator.mean, statistics.mean(0))
    torch.testing.assert_close(estimator.spread[6:], statistics.std(0)[6:])
    assert estimator.spread[5] > 0  # of a statistic that is always the same


@pytest.mark.parametrize("steps", [1, 2])
def test_training_may_be_very_short(steps):
    losses = list(train_estimator(Estimator(2), *toy(10), steps, 4))
    assert len(losses) == steps
    assert all(math.isfinite(loss) for loss in losses)


def said_to_be_clean(estimator, images):
    return sum(int(estimate(estimator, image).argmax() == len(estimator.score.bias) - 1) for image in images)


def test_caution_is_raised_until_the_share_is_said_to_be_clean(monkeypatch, fill_parameters):
    known = functools.cache(
        lambda values, shape: texture(torch.frombuffer(bytearray(values), dtype=torch.float32).view(shape))
    )
    monkeypatch.setattr(estimator_module, "texture", lambda tile: known(tile.numpy().tobytes(), tile.shape))
    images = [random_image(16, 16, seed=seed) ** (1 + seed % 5) for seed in range(10)]

    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 99), st.floats(0.01, 1), st.sampled_from([0.0, 1.0]))
    def reaches(seed, share, caution):
        estimator = fill_parameters(Estimator(2).eval(), seed, 0.3)
        estimator.caution.fill_(caution)
        already = said_to_be_clean(estimator, images)
        trust_clean(estimator, iter(images), share)
        assert said_to_be_clean(estimator, images) >= share * len(images)
        assert estimator.caution >= caution
        assert not estimator.caution.requires_grad
        if already > share * len(images):
            assert estimator.caution == caution
        elif estimator.caution > caution:  # and no further
            estimator.caution -= 0.01
            assert said_to_be_clean(estimator, images) < share * len(images) + 1

    reaches()


def test_caution_is_never_lowered(fill_parameters):
    estimator = fill_parameters(Estimator(2).eval(), 1)
    estimator.caution.fill_(50)
    trust_clean(estimator, [random_image(16, 16)], 0.5)
    assert estimator.caution == 50
