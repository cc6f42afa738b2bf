"""Intervals that fit: the best denoiser's answers, and the cut that keeps levels of one answer together."""

import itertools

import pytest
import torch
from diffusers import DDPMScheduler

from ipt.diffusion.cuts import best_answers, cut, optimal_boundaries
from ipt.diffusion.noise_levels import noise_intervals


def test_the_best_answer_is_the_mean_of_the_images_by_their_likelihood():
    images = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    schedule = torch.tensor([0.999999, 0.6, 1e-9], dtype=torch.float64)
    answers = best_answers(images, schedule, seed=0)
    assert answers.shape == (3, 5, 12)
    generator = torch.Generator().manual_seed(0)
    tried = images.flatten(1)[torch.randperm(5, generator=generator)]
    noise = torch.randn(tried.shape, generator=generator, dtype=tried.dtype)
    torch.testing.assert_close(answers[0], tried)  # hardly any noise: the image itself
    torch.testing.assert_close(answers[2], images.flatten(1).mean(0).expand(5, -1), atol=1e-2, rtol=0)
    noisy = 0.6**0.5 * tried + 0.4**0.5 * noise
    for given, answer in zip(noisy, answers[1], strict=True):
        likely = torch.stack([(-(given - 0.6**0.5 * x).square().sum() / 0.8).exp() for x in images.flatten(1)])
        torch.testing.assert_close((likely / likely.sum()) @ images.flatten(1), answer)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_cut_is_the_best_of_all(count):
    places = torch.rand(8, 2, generator=torch.Generator().manual_seed(3)).cumsum(0)

    def cost(first):
        parts = torch.tensor_split(places, first)
        return sum(float((part - part.mean(0)).square().sum()) for part in parts)

    found = cut(torch.cdist(places, places).square(), count)
    assert len(found) == count - 1
    every = itertools.combinations(range(1, 8), count - 1)
    assert cost(found) == pytest.approx(min(cost(first) for first in every), abs=1e-6)


def test_levels_of_one_answer_stay_together():
    places = torch.tensor([0.0, 0, 0, 0, 5, 9, 9, 9])[:, None]
    assert cut(torch.cdist(places, places).square(), 3) == [4, 5]


def test_the_ends_of_the_noise_are_one_interval_each():
    """Photographs are known again through much noise, and then nothing of them is: the cuts lie between."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.nn.functional.interpolate(torch.rand(200, 3, 2, 2, generator=generator), size=8, mode="bilinear")
    steps = DDPMScheduler(1000)
    first = optimal_boundaries(clean, steps, 4, seed=0)
    assert first == optimal_boundaries(clean, steps, 4, seed=0)
    assert len(first) == 3
    assert first[0] > 100
    assert first == sorted(set(first))
    assert noise_intervals(steps.alphas_cumprod, first).max() == 3
    assert optimal_boundaries(clean, steps, 1, seed=0) == []


def test_more_intervals_than_timesteps_are_refused():
    for count in (0, 1001):
        with pytest.raises(ValueError, match=f"expected 1 to 1000 intervals, one a timestep at most, got {count}"):
            optimal_boundaries(torch.rand(4, 3, 4, 4), DDPMScheduler(1000), count, seed=0)
    assert optimal_boundaries(torch.rand(4, 3, 4, 4), DDPMScheduler(5), 5, seed=0) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="expected 1 to 3 parts"):
        cut(torch.zeros(3, 3), 4)
