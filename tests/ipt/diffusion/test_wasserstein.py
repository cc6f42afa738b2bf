"""The distance of two sets of images: known values, order, noise floor."""

import pytest
import torch

from ipt.diffusion.wasserstein import sliced_wasserstein


def test_the_same_patches_in_another_order_have_no_distance():
    images = torch.rand(16, 3, 16, 16)
    assert sliced_wasserstein(images, images.flip(0)) < 1e-6


@pytest.mark.parametrize("shift", [0.1, 0.4])
def test_a_shift_of_all_values_is_its_length_in_a_random_direction(shift):
    """A shift s of a cloud of n dimensions moves it by s sqrt(n); a projection sees 1 / sqrt(n) of it, on the mean."""
    images = torch.rand(16, 3, 16, 16) * 0.5
    assert sliced_wasserstein(images, images + shift) == pytest.approx(shift, rel=0.1)


def test_two_draws_of_one_kind_are_closer_than_two_kinds():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 32, 3, 16, 16, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(second, 3, stride=1, padding=1, count_include_pad=False)
    floor = sliced_wasserstein(first, second)
    assert 0 < floor < 0.5 * sliced_wasserstein(first, smooth)


def test_sets_of_different_size_are_refused():
    with pytest.raises(ValueError, match="two sets of one shape"):
        sliced_wasserstein(torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8))
