"""Each damage's own sentences: formulas, units, directions."""

import cv2
import numpy as np
import pytest

from degradations.blur import camera_shake, defocus, disc_kernel
from degradations.depth import fractal, guided_filter, scene_depth
from degradations.drops import lens_drops
from degradations.frames import frame_average
from degradations.haze import haze
from degradations.light import linear_to_srgb, srgb_to_linear
from degradations.lowlight import low_light
from degradations.motion import object_motion
from degradations.noise import gaussian_noise, sensor_noise
from degradations.rain import rain, streak_layer
from degradations.resolution import low_resolution
from degradations.snow import snow
from degradations.trajectory import STEPS, hand_path, path_kernel


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(value, height=128, width=128):
    return np.full((height, width, 3), value, np.float32)


def noisy(height=64, width=64, seed=0):
    return rng(seed).random((height, width, 3), np.float32)


# --- light ---


def test_srgb_round_trip():
    values = np.linspace(0, 1, 10000, dtype=np.float32).reshape(100, 100)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=2e-6)
    assert srgb_to_linear(values).dtype == linear_to_srgb(values).dtype == np.float32


@pytest.mark.parametrize("convert", [srgb_to_linear, linear_to_srgb])
def test_light_of_a_view_is_that_of_its_copy(convert):
    """The conversions work in place on flattened memory; a transposed picture has another order."""
    image = rng(1).random((9, 12, 3)).astype(np.float32)
    kept = image.copy()
    np.testing.assert_array_equal(convert(image.transpose(1, 0, 2)), convert(image).transpose(1, 0, 2))
    np.testing.assert_array_equal(convert(image[::2, ::3]), convert(image)[::2, ::3])
    np.testing.assert_array_equal(image, kept)


def test_srgb_known_values():
    values = np.float32([[0, 0.04045, 0.5, 1]])
    np.testing.assert_allclose(srgb_to_linear(values), [[0, 0.0031308, 0.2140411, 1]], atol=1e-6)
    assert srgb_to_linear(values)[0, 0] == 0
    assert srgb_to_linear(values).max() <= 1
    np.testing.assert_allclose(linear_to_srgb(np.float32([[-1, 3]])), [[0, 1]], atol=1e-6)


# --- noise ---


@pytest.mark.parametrize("sigma", [5, 15, 25])
def test_gaussian_noise_has_its_sigma_and_mean_zero(sigma):
    noise = (gaussian_noise(flat(0.5, 256, 256), rng(), sigma=sigma) - 0.5) * 255
    assert noise.std() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean()) < 0.02 * sigma
    # White: neighbours and channels know nothing of each other.
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_spreads_vary_the_sigma_over_channels_and_places():
    image = flat(0.5, 256, 256)
    even = gaussian_noise(image, rng(), sigma=20) - image
    channels = gaussian_noise(image, rng(), sigma=20, channel_spread=0.5) - image
    places = gaussian_noise(image, rng(), sigma=20, spatial_spread=1) - image
    ratio = channels.std(axis=(0, 1)) / even.std(axis=(0, 1))
    assert np.ptp(ratio) > 0.1
    assert (abs(ratio - 1) < 0.51).all()
    local = cv2.blur(places[..., 0] ** 2, (31, 31)) ** 0.5 * 255
    assert local.min() < 5
    assert 30 < local.max() < 45


def test_sensor_noise_follows_its_variance_in_green():
    # Measured green sites keep their own noise: variance shot^2 x + read^2 in linear light.
    light, shot, read = 0.25, 12.0, 4.0
    image = linear_to_srgb(flat(light, 256, 256))
    noise = (srgb_to_linear(sensor_noise(image, rng(), shot=shot, read=read)) - light) * 255
    green = noise[..., 1]
    # Half the sites are measured, half are means of four neighbours (a quarter of the variance).
    expected = (shot**2 * light + read**2) * (1 + 0.25) / 2
    assert green.var() == pytest.approx(expected, rel=0.04)
    assert abs(green.mean()) < 0.1


def test_white_balance_amplifies_red_and_blue():
    image = linear_to_srgb(flat(0.2, 256, 256))

    def spread(red):
        noise = sensor_noise(image, rng(), shot=0, read=3, red_gain=red, blue_gain=1) - image
        return noise.std(axis=(0, 1))

    assert spread(2.0)[0] / spread(1.0)[0] == pytest.approx(2, rel=0.02)
    assert spread(2.0)[2] == pytest.approx(spread(1.0)[2], rel=1e-3)


def test_sensor_noise_is_correlated_and_strongest_in_the_shadows():
    noise = {value: sensor_noise(flat(value, 256, 256), rng(), shot=8, read=2) - value for value in (0.3, 0.8)}
    dark = noise[0.3]
    assert np.corrcoef(dark[:, 1:, 0].ravel(), dark[:, :-1, 0].ravel())[0, 1] > 0.2
    assert dark.std() > 1.1 * noise[0.8].std()


# --- blur ---


def test_shake_keeps_flat_pictures_and_the_mean_of_light():
    for value in (0.0, 0.5, 1.0):
        shaken = camera_shake(flat(value, 40, 40), rng(), length=20)
        np.testing.assert_allclose(shaken, value, atol=2e-5)


def test_blur_averages_in_linear_light():
    stripes = flat(0.0, 64, 64)
    stripes[:, ::2] = 1
    # Half the light is 0.735 in sRGB; averaging sRGB values would give 0.5.
    assert defocus(stripes, rng(), radius=8)[32, 32, 0] == pytest.approx(0.735, abs=0.02)


def test_frames_are_averaged_in_their_values():
    """Along the same path as light is by a shaking hand, and darker beside a bright edge."""
    edge = flat(0.0, 64, 64)
    edge[:, 32:] = 1
    film = frame_average(edge, rng(5), length=20, nervousness=0)
    exposed = srgb_to_linear(camera_shake(edge, rng(5), length=20, nervousness=0))
    np.testing.assert_allclose(film, exposed, atol=1e-4)
    assert 0.2 < film[32, 32, 0] < 0.8  # and is not shifted


def test_highlights_shine_beyond_white():
    image = flat(0.1, 65, 65)
    image[32, 32] = 1
    plain = defocus(image, rng(), radius=4)
    lamp = defocus(image, rng(), radius=4, highlight=8)
    assert lamp[32, 34, 0] > plain[32, 34, 0] + 0.1
    assert lamp[2, 2, 0] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("length", [0.3, 5.0, 40.0])
@pytest.mark.parametrize("nervousness", [0.0, 0.5, 1.0])
def test_hand_path_has_its_length_and_shifts_nothing(length, nervousness):
    path = hand_path(rng(), length=length, nervousness=nervousness)
    assert path.shape == (STEPS, 2)
    assert np.ptp(path, axis=0).max() == pytest.approx(length)
    np.testing.assert_allclose(path.mean(axis=0), 0, atol=1e-9)


def test_a_calm_hand_sweeps_evenly_and_a_nervous_one_does_not():
    def straightness(nervousness, seed):
        path = hand_path(rng(seed), length=20, nervousness=nervousness)
        ends = np.hypot(*(path[-1] - path[0]))
        return ends / np.hypot(*np.diff(path, axis=0).T).sum()

    assert straightness(0, 1) == pytest.approx(1)
    assert np.mean([straightness(1, seed) for seed in range(10)]) < 0.5


def test_path_kernel_is_subpixel_and_sums_to_one():
    kernel = path_kernel(np.array([[0.25, 0.0]] * 2))
    assert kernel.shape == (3, 3)
    np.testing.assert_allclose(kernel[1], [0, 0.75, 0.25], atol=1e-6)
    for seed in range(5):
        kernel = path_kernel(hand_path(rng(seed), length=40, nervousness=0.3))
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] % 2 == 1


def test_shake_spreads_light_without_a_shift_with_and_without_roll():
    image = flat(0.0, 65, 65)
    image[32, 32] = 1
    # Roll turns about the picture's middle.
    for roll in (0.0, 1e-6):
        light = srgb_to_linear(camera_shake(image, rng(4), length=16, nervousness=0.3, roll=roll))
        light = light[..., 0]
        y, x = np.indices(light.shape)
        centre = [(light * x).sum() / light.sum() - 32, (light * y).sum() / light.sum() - 32]
        np.testing.assert_allclose(centre, 0, atol=0.3)


def test_roll_does_not_turn_the_picture_on_the_average():
    image = flat(0.0, 129, 129)
    image[64, 114] = 1
    for seed in range(5):
        light = srgb_to_linear(camera_shake(image, rng(seed), length=0, nervousness=0.3, roll=8))[..., 0]
        y, x = np.indices(light.shape)
        assert (light * y).sum() / light.sum() == pytest.approx(64, abs=0.3)
        assert (light * x).sum() / light.sum() == pytest.approx(114, abs=0.5)


def test_roll_blurs_the_rim_more_than_the_middle():
    image = noisy(129, 129)
    difference = abs(camera_shake(image, rng(), length=0, roll=6) - image).mean(axis=2)
    assert difference[:20, :20].mean() > 2 * difference[60:69, 60:69].mean()


def test_object_motion_leaves_the_rest_and_keeps_flat_pictures():
    np.testing.assert_allclose(object_motion(flat(0.4), rng(), length=20, size=0.5), 0.4, atol=1e-5)
    image = noisy(128, 128)
    for seed in range(5):
        change = abs(object_motion(image, rng(seed), length=10, size=0.3) - image).max(axis=2)
        touched = (change > 1e-3).mean()
        assert touched < 0.25
        assert change.max() > 0.1 or touched == 0
        assert (change == 0).mean() > 0.5  # to the bit, away from the thing


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.3, 20.0])
def test_disc_has_its_radius(radius):
    disc = disc_kernel(radius)
    reach = disc.shape[0] // 2
    assert disc.shape == (2 * reach + 1,) * 2
    assert reach == np.ceil(radius)
    assert disc.sum() == pytest.approx(1, abs=1e-5)
    if radius > 3:
        assert 1 / disc.max() == pytest.approx(np.pi * radius**2, rel=0.03)


# --- haze and depth ---


def test_haze_is_exact_for_a_given_depth():
    image = noisy()
    depth = rng(1).uniform(0, 20, (64, 64)).astype(np.float32)
    hazy = haze(image, rng(), beta=0.1, airlight=0.8, depth=depth)
    t = np.exp(-0.1 * depth)[..., None]
    np.testing.assert_allclose(hazy, image * t + 0.8 * (1 - t), atol=1e-6)


def test_haze_without_span_is_one_transmission():
    image = noisy()
    hazy = haze(image, rng(), beta=0.2, airlight=0.9, near=3, span=0)
    t = np.exp(-0.2 * 3)
    np.testing.assert_allclose(hazy, image * t + 0.9 * (1 - t), atol=1e-6)


def test_made_up_depth_runs_from_near_to_near_plus_span():
    t = 1 - haze(flat(0.0), rng(), beta=0.1, airlight=1.0, near=2, span=6)[..., 0]
    np.testing.assert_allclose([t.max(), t.min()], np.exp([-0.2, -0.8]), atol=1e-5)


def test_tint_colours_the_airlight_within_its_reach():
    far = np.full((128, 128), 1e4, np.float32)
    colour = haze(flat(0.0), rng(), beta=1, airlight=0.8, tint=0.1, depth=far)[0, 0]
    assert np.ptp(colour) > 0.01
    assert (abs(colour - 0.8) <= 0.1).all()
    gray = haze(flat(0.0), rng(), beta=1, airlight=0.8, depth=far)[0, 0]
    np.testing.assert_allclose(gray, 0.8, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.ones((3, 4)), "expected a depth of shape"),
        (np.full((64, 64), np.nan), "finite and >= 0"),
        (np.full((64, 64), -1.0), "finite and >= 0"),
    ],
)
def test_wrong_depth_is_refused(depth, message):
    with pytest.raises(ValueError, match=message):
        haze(noisy(), rng(), beta=0.1, airlight=0.8, depth=depth)


@pytest.mark.parametrize("size", [(8, 8), (17, 23), (128, 128)])
def test_scene_depth_spans_zero_to_one(size):
    for seed in range(10):
        depth = scene_depth(noisy(*size, seed), rng(seed))
        assert depth.shape == size
        assert depth.dtype == np.float32
        assert depth.min() >= 0
        assert depth.max() <= 1 + 1e-6
    assert np.ptp(depth) > 0.5


def test_guided_filter_moves_edges_to_the_guide():
    guide = np.zeros((64, 64), np.float32)
    guide[:, 32:] = 1
    source = np.zeros((64, 64), np.float32)
    source[:, 36:] = 1  # an edge four pixels off
    filtered = guided_filter(guide, source, 8, 1e-3)
    steps = abs(np.diff(filtered, axis=1)).mean(axis=0)
    assert steps.argmax() == 31
    flat_guide = guided_filter(np.zeros_like(guide), source, 8, 1e-3)
    assert abs(np.diff(flat_guide, axis=1)).max() < 0.1


def test_fractal_is_a_relief_in_zero_to_one():
    relief = fractal((40, 50), rng())
    assert relief.shape == (40, 50)
    assert (relief.min(), relief.max()) == (0, 1)


# --- rain ---


def direction(layer):
    """Angle of the streaks, degrees counter-clockwise from straight down, by structure tensor."""
    dx, dy = cv2.Sobel(layer, cv2.CV_32F, 1, 0), cv2.Sobel(layer, cv2.CV_32F, 0, 1)
    across = np.degrees(0.5 * np.arctan2(2 * (dx * dy).mean(), (dx * dx).mean() - (dy * dy).mean()))
    return -across


@pytest.mark.parametrize("angle", [-40, 0, 25])
def test_streaks_fall_at_their_angle_counter_clockwise(angle):
    layer = streak_layer((256, 256), rng(), density=3000, length=60, width=3, angle=angle, jitter=1)
    assert direction(layer) == pytest.approx(angle, abs=3)


def test_longest_streaks_have_their_length_width_and_brightness():
    def boxes(**changes):
        parameters = {"density": 60, "length": 60, "width": 4, "angle": 0, "jitter": 0}
        return streak_layer((1024, 1024), rng(3), **{**parameters, **changes})

    layer = boxes()
    _, _, stats, _ = cv2.connectedComponentsWithStats((layer > 0.05).astype(np.uint8))
    heights = stats[1:, 3]
    assert 30 < heights.max() <= 60 + 8
    assert 0.4 < layer.max() < 1.2
    wider = boxes(width=8)
    assert (wider > layer.max() / 4).sum() > 1.5 * (layer > layer.max() / 4).sum()


def test_density_counts_streaks():
    parameters = {"length": 20, "width": 2, "angle": 0, "jitter": 0}
    sums = [streak_layer((512, 512), rng(), density=density, **parameters).sum() for density in (2000, 4000)]
    assert sums[1] / sums[0] == pytest.approx(2, rel=0.15)


def test_rain_is_colourless_additive_light():
    image = noisy(seed=2) * np.float32(0.2)
    parameters = {"density": 5000, "length": 40, "width": 3, "brightness": 0.4, "angle": 10}
    light = rain(image, rng(), **parameters) - image
    np.testing.assert_allclose(light[..., 0], light[..., 1], atol=1e-6)
    assert light.min() >= -1e-6
    assert (light > 0.05).mean() > 0.05
    covered = rain(image, rng(), **parameters, screen=1.0) - image
    np.testing.assert_allclose(covered, light * (1 - image), atol=1e-5)


def test_veil_lightens_the_distance():
    veiled = rain(flat(0.2), rng(), density=0, length=9, width=1, brightness=0, veil=0.5)
    assert veiled.min() == pytest.approx(0.2, abs=1e-5)
    assert veiled.max() == pytest.approx(0.2 + 0.5 * (0.75 - 0.2), abs=1e-5)


# --- snow ---


def test_snow_tends_to_its_brightness_and_never_beyond():
    image = noisy(seed=5)
    snowy = snow(image, rng(), density=50000, size=20, opacity=1, brightness=0.9)
    assert np.median(abs(snowy - 0.9)) < 0.1 < np.median(abs(image - 0.9))
    dark = snow(flat(0.0), rng(), density=3000, size=8, opacity=1, brightness=0.9)
    assert dark.max() <= 0.9 + 1e-6
    assert dark.max() > 0.85
    bright = snow(flat(1.0), rng(), density=3000, size=8, opacity=1, brightness=0.9)
    assert bright.min() >= 0.9 - 1e-6


def test_flakes_are_transparent_to_their_opacity():
    snowy = snow(flat(0.0), rng(), density=200, size=10, opacity=0.5, brightness=1.0)
    assert 0.4 < snowy.max() <= 0.5 + 1e-6


def test_flakes_have_their_size():
    def largest(size):
        snowy = snow(flat(0.0, 1024, 1024), rng(), density=100, size=size, opacity=1)
        flakes = (snowy[..., 0] > 0.05).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(flakes)
        return np.percentile(stats[1:, 2:4].max(axis=1), 98)

    assert 6 < largest(12) < 18
    assert largest(20) > 1.3 * largest(12)


@pytest.mark.parametrize("angle", [-30, 0, 30])
def test_moving_flakes_are_drawn_out_along_the_angle(angle):
    black = flat(0.0, 256, 256)
    snowy = snow(black, rng(), density=3000, size=4, opacity=1, motion=30, angle=angle)
    assert direction(snowy[..., 0]) == pytest.approx(angle, abs=5)


def test_density_counts_flakes():
    for size in (3, 12):
        snowy = snow(flat(0.0, 512, 512), rng(), density=150, size=size, opacity=1)
        count = cv2.connectedComponents((snowy[..., 0] > 0.02).astype(np.uint8))[0] - 1
        assert count == pytest.approx(150 * 0.512**2, rel=0.35)


def test_soft_flakes_are_larger_and_fainter():
    soft = snow(
        flat(0.0, 256, 256),
        rng(1),
        density=0,
        size=4,
        opacity=1,
        soft_density=200,
        soft_size=40,
        brightness=1.0,
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats((soft[..., 0] > 0.1).astype(np.uint8))
    assert stats[1:, 2].max() > 20
    assert soft.max() < 0.95


def test_distant_snow_has_its_mean_opacity():
    snowy = snow(
        flat(0.0, 256, 256),
        rng(),
        density=0,
        size=4,
        opacity=1,
        distant=0.2,
        brightness=1.0,
        motion=8,
    )
    assert snowy.mean() == pytest.approx(0.2, abs=0.03)
    assert snowy.std() > 0.03


# --- low light ---


@pytest.mark.parametrize("stops", [1, 2.5])
def test_each_stop_halves_the_light(stops):
    image = noisy()
    light = srgb_to_linear(low_light(image, rng(), stops=stops))
    np.testing.assert_allclose(light, srgb_to_linear(image) * 2**-stops, atol=1e-5)


def test_a_cast_dims_each_channel_by_one_factor_and_none_brightens():
    light = srgb_to_linear(low_light(flat(0.8), rng(), stops=0, cast=0.3)) / srgb_to_linear(flat(0.8))
    factors = light[0, 0]
    np.testing.assert_allclose(light, np.broadcast_to(factors, light.shape), atol=1e-5)
    assert len(set(factors)) == 3
    assert (factors >= 0.7).all()
    assert (factors <= 1 + 1e-6).all()


def test_noise_shows_more_the_darker_the_picture():
    def relative(stops):
        light = srgb_to_linear(low_light(flat(0.7, 256, 256), rng(), stops=stops, shot=3))
        return light.std() / light.mean()

    assert relative(2) == pytest.approx(2 * relative(0), rel=0.1)  # photon noise: a quarter of the light, twice


# --- low resolution ---


@pytest.mark.parametrize("seed", range(6))
def test_low_resolution_keeps_large_structure_and_loses_what_the_small_picture_cannot_hold(seed):
    x = np.arange(128, dtype=np.float32)
    for period, low, high in ((64, 0.85, 1.01), (3, 0.0, 0.2)):
        wave = np.repeat((0.5 + 0.4 * np.sin(2 * np.pi * x / period))[None, :, None], 128, 0).repeat(3, 2)
        small = low_resolution(wave.astype(np.float32), rng(seed), factor=4, blur=0.5)
        assert low <= small[16:-16, 16:-16].std() / wave[16:-16, 16:-16].std() <= high


def test_the_interpolation_is_drawn():
    assert len({low_resolution(noisy(), rng(seed), factor=2).tobytes() for seed in range(30)}) == 6


def test_a_factor_larger_than_the_picture_leaves_one_pixel():
    assert low_resolution(noisy(8, 64), rng(), factor=8).shape == (8, 64, 3)


# --- drops on the lens ---


def test_drops_cover_a_share_of_the_picture_and_leave_the_rest_as_it_is():
    image = noisy(256, 256)
    changed = (lens_drops(image, rng(), density=300, size=40) != image).any(2).mean()
    # Mean area of a drop: pi r^2 0.875, r^2 with r uniform from 5 to 20; some lie over one another.
    expected = 1 - np.exp(-300e-6 * np.pi * 175 * 0.875)
    assert changed == pytest.approx(expected, rel=0.35)


def test_a_drop_shows_the_scene_upside_down():
    ramp = np.repeat(np.linspace(0.2, 0.8, 200, dtype=np.float32)[:, None, None], 200, 1).repeat(3, 2)
    for seed in range(20):
        wet = lens_drops(ramp, rng(seed), density=25, size=60, rim=0)
        rows = np.flatnonzero((wet != ramp).any((1, 2)))
        if len(rows) and rows[0] > 20 and rows[-1] < 180:
            column = int(np.abs(wet - ramp).sum((0, 2)).argmax())
            inside = wet[(rows[0] + rows[-1]) // 2 - 4 : (rows[0] + rows[-1]) // 2 + 5, column, 0]
            assert inside[0] > inside[-1]
            return
    pytest.fail("no seed gave one drop inside the picture")


def test_the_rim_of_a_drop_is_darker():
    bright = flat(0.9, 200, 200)
    wet = lens_drops(bright, rng(3), density=100, size=80, rim=0.8)
    assert wet.min() < 0.75
    np.testing.assert_allclose(lens_drops(bright, rng(3), density=100, size=80, rim=0), bright, atol=1e-6)
