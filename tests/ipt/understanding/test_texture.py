"""Statistics of texture: finite for every picture, hardly dependent on its size, and moved by damage as they say."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ipt.understanding import texture as parts
from ipt.understanding.texture import DIRECTIONS, LINE, SCALES, SMALL, STEPS, TONES, texture

GREY = torch.tensor([0.5, 0.5, 0.5]).view(1, 3, 1, 1)
TONAL = 3 + 2 * len(TONES) + 8  # statistics of tone; the rest is as many at each scale


def picture(side=64):
    """Large soft shapes and a fine grain, in the middle of the range."""
    shapes = F.interpolate(torch.rand(1, 3, side // 8, side // 8), size=(side, side), mode="bilinear")
    return 0.3 + 0.3 * shapes + 0.05 * torch.rand(1, 1, side, side)


def noisy(image, sigma):
    return (image + sigma * torch.randn(image.shape)).clamp(0, 1)


def blurred(image, rows=5, columns=5):
    kernel = torch.ones(image.shape[1], 1, rows, columns) / (rows * columns)
    padded = F.pad(image, (columns // 2, columns // 2, rows // 2, rows // 2), mode="replicate")
    return F.conv2d(padded, kernel, groups=image.shape[1])


def luma(image):
    return (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def scales(statistics):
    """The statistics of each scale, without those of tone."""
    return statistics[:, TONAL:].chunk(SCALES, 1)


KINDS = {
    "black": lambda h, w: torch.zeros(1, 3, h, w),
    "white": lambda h, w: torch.ones(1, 3, h, w),
    "red": lambda h, w: torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, h, w),
    "noise": lambda h, w: torch.rand(1, 3, h, w),
    "black and white": lambda h, w: torch.randint(2, (1, 3, h, w)).float(),
    "one white pixel": lambda h, w: (torch.arange(h * w) == h * w // 2).float().view(h, w).expand(1, 3, h, w),
    "stripes": lambda h, w: (torch.arange(w) % 2).float().expand(1, 3, h, w),
    "almost flat": lambda h, w: 0.5 + 1e-7 * torch.rand(1, 3, h, w),
}  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(KINDS)), st.integers(16, 48), st.integers(16, 48))
def test_finite_for_every_picture(kind, height, width):
    statistics = texture(KINDS[kind](height, width))
    assert statistics.shape == texture(GREY.expand(1, 3, 16, 16)).shape
    assert torch.isfinite(statistics).all()
    assert statistics.abs().max() < 40  # logarithms and quotients too stay within bounds


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (64, 33)])
def test_one_at_a_time_is_as_a_batch(size):
    tiles = torch.cat([*(kind(*size) for kind in KINDS.values())])
    together = texture(tiles)
    assert len(together) == len(tiles)
    for number in range(len(tiles)):
        torch.testing.assert_close(texture(tiles[number : number + 1])[0], together[number], atol=2e-4, rtol=1e-4)


def test_each_scale_is_half_of_the_one_before():
    image = torch.rand(2, 3, 64, 96)
    first, second, third = scales(texture(image))
    torch.testing.assert_close(torch.cat(scales(texture(F.avg_pool2d(image, 2)))[:2], 1), torch.cat([second, third], 1))
    torch.testing.assert_close(scales(texture(F.avg_pool2d(image, 4)))[0], third)
    assert (first - second).abs().max() > 0.1


def test_what_is_finer_than_a_scale_does_not_show_there():
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = (0.4 + 0.2 * ((rows + columns) % 2)).expand(1, 3, 64, 64)
    flat = GREY.expand(1, 3, 64, 64)
    with_board, without = scales(texture(board)), scales(texture(flat))
    assert (with_board[0] - without[0]).abs().max() > 1
    for scale in (1, 2):
        torch.testing.assert_close(with_board[scale], without[scale], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_the_size_of_a_tile_of_noise_hardly_matters(sigma):
    image = (0.5 + sigma * torch.randn(1, 3, 384, 384)).clamp(0, 1)
    large, small = image[..., :256, :256], image[..., 256:, 256:]
    for statistics, limit in (
        (lambda tile: parts._tones(tile), 0.05),
        (lambda tile: parts._differences(tile, luma(tile)), 0.1),
        (lambda tile: parts._likeness(luma(tile), 2), 0.05),
        (lambda tile: parts._likeness(luma(tile), 3), 0.05),
        (lambda tile: parts._spots(luma(tile), 3), 0.1),
        (lambda tile: parts._spots(luma(tile), 7), 0.1),
    ):
        assert (statistics(small) - statistics(large)).abs().max() < limit
    # Line filters see black beyond the border, of which a small tile has more; a sum would differ by log 4 at least.
    assert (texture(small) - texture(large)).abs().mean() < 0.15


def test_noise_raises_small_differences():
    image = picture()
    shares = [
        parts._differences(i, luma(i))[0, 3 : 3 + len(STEPS)] for i in (image, noisy(image, 0.02), noisy(image, 0.1))
    ]
    sizes = [parts._differences(i, luma(i))[0, 0] for i in (image, noisy(image, 0.02), noisy(image, 0.1))]
    assert sizes[0] < sizes[1] < sizes[2]
    assert (shares[1] >= shares[0] - 0.02).all()
    assert (shares[2] >= shares[1] - 0.02).all()
    assert shares[1][4] > shares[0][4] + 0.1  # above 4 grey levels


def test_differences_are_nothing_on_a_slope_and_in_plain_grey():
    slope = torch.linspace(0, 1, 40).expand(1, 3, 40, 40)
    found = parts._differences(slope, luma(slope))[0]
    assert found[0] == pytest.approx(math.log(SMALL), abs=0.02)
    assert (found[3 : 3 + len(STEPS)] == 0).all()
    torch.testing.assert_close(found[3 + len(STEPS) :][:3], torch.full((3,), math.log(SMALL)), atol=0.01, rtol=0)


def test_differences_tell_noise_of_colour_from_noise_of_brightness():
    own, shared = noisy(GREY.expand(1, 3, 64, 64), 0.05), 0.5 + 0.05 * torch.randn(1, 1, 64, 64).expand(1, 3, 64, 64)
    of_own, of_shared = (parts._differences(i, luma(i))[0] for i in (own, shared))
    torch.testing.assert_close(of_shared[-3:], torch.ones(3), atol=0.01, rtol=0)
    torch.testing.assert_close(of_own[-3:], torch.zeros(3), atol=0.1, rtol=0)
    assert (of_own[-6:-3] > of_shared[-6:-3] + 2).all()


def test_neighbouring_differences_of_noise_are_unlike_as_they_must_be():
    """White noise: the difference to the left and that to the right share a pixel, with opposite signs."""
    image = luma(noisy(GREY.expand(1, 3, 200, 200), 0.05))
    for axis in (2, 3):
        torch.testing.assert_close(parts._likeness(image, axis)[0, :3], torch.tensor([-0.5, 0, 0]), atol=0.03, rtol=0)


@pytest.mark.parametrize(("place", "lag"), [(0, 1), (1, 2), (2, 4)])
def test_likeness_is_at_1_2_and_4_pixels(place, lag):
    """The mean of `lag` pixels of noise: differences share a pixel where they are so far apart, and only there."""
    image = luma(noisy(GREY.expand(1, 3, 200, 200), 0.05)).unfold(3, lag, 1).mean(-1)
    expected = torch.zeros(3)
    expected[place] = -0.5
    torch.testing.assert_close(parts._likeness(image, 3)[0, :3], expected, atol=0.03, rtol=0)


def test_blur_raises_likeness_along_its_axis():
    image = luma(noisy(picture(), 0.1))
    sharp = [parts._likeness(image, axis)[0, 0] for axis in (2, 3)]
    down = [parts._likeness(blurred(image, 9, 1), axis)[0, 0] for axis in (2, 3)]
    both = [parts._likeness(blurred(blurred(image)), axis)[0, 0] for axis in (2, 3)]
    assert down[0] > sharp[0] + 0.3
    assert abs(down[1] - sharp[1]) < 0.2
    assert all(b > s + 0.5 for b, s in zip(both, sharp, strict=True))


def test_likeness_counts_steps_along_its_axis():
    edges = (torch.arange(33) % 4 // 2 * 0.3).expand(1, 1, 20, 33)  # every second step is 0.3
    torch.testing.assert_close(parts._likeness(edges, 3)[0, 3:], torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0]))
    assert (parts._likeness(edges, 2)[0] == 0).all()
    assert (parts._likeness(edges[..., :3], 3)[0, 2]) == 0  # so short that no two are 4 apart


@pytest.mark.parametrize("side", [3, 7])
def test_bright_spots_shift_the_quotient_of_top_hats_one_way_and_dark_ones_the_other(side):
    image = luma(picture())
    places = torch.zeros_like(image, dtype=torch.bool)
    for down in range(side // 2):
        for right in range(side // 2):
            places[..., 5 + down :: 16, 7 + right :: 16] = True
    plain, bright, dark = (
        parts._spots(i, side)[0] for i in (image, image.masked_fill(places, 1), image.masked_fill(places, 0))
    )
    assert dark[-1] < plain[-1] - 0.1
    assert plain[-1] + 0.1 < bright[-1]
    assert bright[1] > plain[1] + 0.3  # the size of bright ones
    assert dark[3] > plain[3] + 0.3
    mirrored = parts._spots(1 - image, side)[0]
    torch.testing.assert_close(mirrored, torch.cat([plain[2:4], plain[:2], -plain[4:]]), atol=1e-3, rtol=1e-3)


def test_top_hats_see_what_is_narrower_than_their_side():
    image = torch.full((1, 1, 64, 64), 0.3)
    nothing = parts._spots(image, 7)
    image[..., 30:35, 30:35] = 0.9  # 5 pixels
    torch.testing.assert_close(parts._spots(image, 3), nothing)
    found = parts._spots(image, 7)[0]
    assert found[0].exp() - SMALL == pytest.approx(0.6 * 25 / 64**2, rel=1e-3)
    assert found[1].exp() - SMALL == pytest.approx(0.6 * 5 / 64, rel=1e-3)
    assert found[2:4].tolist() == nothing[0, 2:4].tolist()


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_bright_lines_show_most_in_the_filter_of_their_direction(direction):
    angle = math.pi * direction / DIRECTIONS
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    across = x * math.cos(angle) + y * math.sin(angle)
    image = (0.3 + 0.4 * (across % 16 < 2))[None, None]
    size, _, lopsided = parts._moments(F.conv2d(image, parts._lines())).view(3, DIRECTIONS)
    assert size.argmax() == direction
    assert lopsided[direction] > 0
    assert parts._moments(F.conv2d(1 - image, parts._lines())).view(3, DIRECTIONS)[2, direction] < 0


def test_line_filters_see_nothing_in_a_flat_picture():
    lines = parts._lines()
    assert lines.shape == (DIRECTIONS, 1, LINE, LINE)
    assert lines.sum((1, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(lines.abs().sum((1, 2, 3)), torch.ones(DIRECTIONS))


def test_haze_raises_what_is_darkest_and_lowers_saturation():
    image = torch.rand(1, 3, 64, 64)
    of_clear, of_haze = (parts._tones(i)[0] for i in (image, 0.4 * image + 0.6))
    dark, saturation = slice(len(TONES), 2 * len(TONES)), slice(2 * len(TONES), 2 * len(TONES) + 8)
    assert of_clear[dark].sum() < 1
    assert of_haze[dark].sum() == 6  # all of it is above 0.6
    assert (of_haze[saturation] <= of_clear[saturation]).all()
    assert of_haze[saturation].sum() < of_clear[saturation].sum() - 0.5


def test_tones_of_a_plain_colour():
    image = torch.tensor([0.9, 0.3, 0.0]).view(1, 3, 1, 1).expand(1, 3, 20, 20)
    luminance, dark, saturation, spread = parts._tones(image)[0].split([len(TONES), len(TONES), 8, 3])
    assert luminance.tolist() == [float(limit < 0.299 * 0.9 + 0.587 * 0.3) for limit in TONES]
    assert not dark.any()  # one channel is black
    assert saturation.tolist() == [float(limit < 0.9) for limit in TONES[:8]]
    assert spread.max() < 1e-6


def test_the_darkest_nearby_reaches_4_pixels():
    image = torch.full((1, 3, 40, 40), 0.7)
    image[0, 1, 20, 20] = 0
    dark = parts._tones(image)[0, len(TONES) : 2 * len(TONES)]
    torch.testing.assert_close(dark[:7], torch.full((7,), 1 - 81 / 1600))


@settings(deadline=None, max_examples=20)
@given(st.floats(0.2, 10))
def test_moments_are_size_peakedness_and_lopsidedness(scale):
    torch.manual_seed(0)
    even, spikes = torch.randn(1, 1, 50, 50), (torch.rand(1, 1, 50, 50) > 0.95).float()
    for x in (even, spikes):
        size, peaked, lopsided = parts._moments(x)[0]
        larger, as_peaked, as_lopsided = parts._moments(scale * x)[0]
        assert larger - size == pytest.approx(math.log(scale), abs=0.05)
        assert as_peaked == pytest.approx(peaked.item(), abs=0.05)
        assert as_lopsided == pytest.approx(lopsided.item(), abs=0.05)
        assert parts._moments(-x)[0, 2] == pytest.approx(-lopsided.item(), abs=1e-4)
    assert parts._moments(spikes)[0, 1] > parts._moments(even)[0, 1] + 0.5
    assert parts._moments(spikes)[0, 2] > 1
    assert abs(parts._moments(even)[0, 2]) < 0.3


def test_shares_are_of_values_above_a_limit():
    x = torch.tensor([[0.0, 0.1, 0.2, 0.3], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(parts._shares(x, (0.05, 0.25)), torch.tensor([[0.75, 0.25], [1.0, 1.0]]))
