"""The contract that every public transform keeps, and the functions behind them."""

import inspect
import json
import os
import pickle

import albumentations as A
import cv2
import numpy as np
import pytest

import degradations
from degradations.blur import camera_shake, defocus
from degradations.drops import lens_drops
from degradations.frames import frame_average
from degradations.haze import haze
from degradations.lowlight import low_light
from degradations.motion import object_motion
from degradations.noise import gaussian_noise, sensor_noise
from degradations.rain import rain
from degradations.resolution import low_resolution
from degradations.snow import snow
from degradations.transform import Damage

NAMES = degradations.__all__

# Function, severities from none to strong (other parameters fixed).
LADDERS = {
    "gaussian": (gaussian_noise, {}, "sigma", [0, 5, 15, 30, 60]),
    "sensor shot": (sensor_noise, {"read": 0}, "shot", [0, 2, 6, 15, 40]),
    "sensor read": (sensor_noise, {"shot": 0}, "read", [0, 1, 3, 8, 20]),
    "shake": (camera_shake, {}, "length", [0, 3, 8, 16, 32]),
    "frames": (frame_average, {}, "length", [0, 3, 8, 16, 32]),
    "roll": (camera_shake, {"length": 0}, "roll", [0, 1, 3, 6, 10]),
    "object": (object_motion, {"size": 0.5}, "length", [0, 3, 8, 16, 32]),
    "defocus": (defocus, {}, "radius", [0, 1, 2, 4, 8]),
    "rain density": (
        rain,
        {"length": 40, "width": 3, "brightness": 0.6},
        "density",
        [0, 1000, 4000, 15000, 50000],
    ),
    "rain brightness": (
        rain,
        {"length": 40, "width": 3, "density": 5000},
        "brightness",
        [0, 0.1, 0.3, 0.6, 1],
    ),
    "rain veil": (
        rain,
        {"length": 40, "width": 3, "density": 0, "brightness": 0.5},
        "veil",
        [0, 0.1, 0.3, 0.6],
    ),
    "haze": (haze, {"airlight": 0.9}, "beta", [0, 0.03, 0.1, 0.3, 1]),
    "dark": (low_light, {}, "stops", [0, 1, 2, 4, 8]),
    "dark tones": (low_light, {"stops": 0}, "gamma", [1, 1.3, 2, 3]),
    "dark shot": (low_light, {"stops": 0}, "shot", [0, 2, 6, 15]),
    "low resolution": (low_resolution, {}, "factor", [1, 1.5, 2, 4, 8]),
    "drops": (lens_drops, {"size": 30}, "density", [0, 50, 200, 1000]),
    "drops' opacity": (lens_drops, {"size": 30, "density": 500}, "opacity", [0, 0.3, 0.7, 1]),
    "snow density": (snow, {"size": 6, "opacity": 0.9}, "density", [0, 1000, 4000, 15000, 50000]),
    "snow opacity": (snow, {"size": 6, "density": 5000}, "opacity", [0, 0.2, 0.5, 0.8, 1]),
    "snow soft": (
        snow,
        {"size": 6, "density": 0, "opacity": 0.9, "soft_size": 20},
        "soft_density",
        [0, 100, 500, 2000],
    ),
    "snow veil": (snow, {"size": 6, "density": 0, "opacity": 0.5}, "veil", [0, 0.1, 0.3, 0.8]),
    "snow distant": (
        snow,
        {"size": 6, "density": 0, "opacity": 0.5, "motion": 8},
        "distant",
        [0, 0.1, 0.3, 0.8],
    ),
}


def picture(height=128, width=128, seed=0):
    """Smooth coloured noise with structure at every scale, float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (2, 4, 8, 16, 32):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image * 0.2 + 0.45, 0, 1)


def transform(name, **arguments):
    return getattr(degradations, name)(**{"p": 1.0, **arguments})


def run(chosen, image, seed=0):
    chosen.set_random_seed(seed)
    return chosen(image=image)["image"]


def mean_error(image, other):
    return float(((image - other) ** 2).mean())


def test_every_public_name_is_a_transform():
    assert len(NAMES) >= 7
    assert all(issubclass(getattr(degradations, name), Damage) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(8, 8), (17, 23), (128, 128), (9, 64)])
def test_shape_type_and_range_hold_and_the_input_is_untouched(name, size):
    flat = np.ones((*size, 3), np.float32)
    for image in (picture(*size), 0 * flat, flat):
        before = image.copy()
        degraded = run(transform(name), image)
        assert degraded.shape == image.shape
        assert degraded.dtype == np.float32
        assert degraded.min() >= 0
        assert degraded.max() <= 1
        assert np.array_equal(image, before)
        assert not np.shares_memory(degraded, image)


@pytest.mark.parametrize("name", NAMES)
def test_a_gray_picture_works(name):
    gray = np.ascontiguousarray(picture()[..., :1].repeat(3, axis=2))
    assert run(transform(name), gray).shape == gray.shape


@pytest.mark.parametrize("name", NAMES)
def test_views_work(name):
    image = picture(40, 60)
    view = image[::-1, ::-1]
    expected = run(transform(name), view.copy())
    assert np.array_equal(run(transform(name), view), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_determines_the_bytes(name):
    image = picture()
    first, again, other = (run(transform(name), image, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_compose_seeds_it(name):
    image = picture()
    results = [A.Compose([transform(name)], seed=5)(image=image)["image"] for _ in range(2)]
    assert np.array_equal(*results)


@pytest.mark.parametrize("name", NAMES)
def test_dictionary_round_trip(name):
    pipeline = A.Compose([transform(name)], seed=1)
    copy = A.from_dict(json.loads(json.dumps(A.to_dict(pipeline))))
    copy.set_random_seed(1)
    image = picture()
    steps, copied = (A.to_dict(each)["transform"]["transforms"] for each in (pipeline, copy))
    assert copied == steps
    assert np.array_equal(copy(image=image)["image"], pipeline(image=image)["image"])


@pytest.mark.parametrize("name", NAMES)
def test_pickle_round_trip(name):
    original = transform(name)
    original.set_random_seed(9)
    copy = pickle.loads(pickle.dumps(original))
    image = picture()
    assert np.array_equal(copy(image=image)["image"], original(image=image)["image"])


@pytest.mark.parametrize("name", NAMES)
def test_severity_holds_what_was_drawn_and_reproduces_the_image(name):
    chosen, image = transform(name), picture()
    assert chosen.severity == {}
    degraded = run(chosen, image, seed=2)
    assert set(chosen.severity) == set(chosen.bounds)
    for key, value in chosen.severity.items():
        low, high = getattr(chosen, key)
        assert low <= value <= high
    rng = np.random.default_rng(chosen.params["rng_seed"])
    assert np.array_equal(type(chosen).function(image, rng, **chosen.severity), degraded)


@pytest.mark.parametrize("name", NAMES)
def test_severity_is_empty_after_a_skip(name):
    skipped = transform(name, p=0.0)
    image = picture()
    assert np.array_equal(skipped(image=image)["image"], image)
    assert skipped.severity == {}


@pytest.mark.parametrize("name", NAMES)
def test_arguments_bounds_and_the_functions_parameters_are_the_same(name):
    kind = getattr(degradations, name)
    own = set(inspect.signature(kind).parameters) - {"p"}
    taken = set(inspect.signature(kind.function).parameters) - {"image", "rng", "depth"}
    assert own == set(kind.bounds) == taken


@pytest.mark.parametrize("name", NAMES)
def test_unknown_arguments_are_refused(name):
    with pytest.raises(TypeError, match="strenght"):
        transform(name, strenght=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_keeps_its_bounds(name):
    kind = getattr(degradations, name)
    assert kind.bounds
    for key, (low, high) in kind.bounds.items():
        assert getattr(transform(name, **{key: high}), key) == (high, high)
        for bad in (
            low - 1,
            high + 1,
            (low, high + 1),
            (high, low),
            "x",
            None,
            float("nan"),
            True,
            (low, low, high),
            [None, high],
        ):
            with pytest.raises(ValueError, match=f"{name}.{key}: expected"):
                transform(name, **{key: bad})


@pytest.mark.parametrize("name", NAMES)
def test_probability_keeps_its_bounds(name):
    with pytest.raises(ValueError, match=f"{name}.p: expected values from 0 to 1"):
        transform(name, p=1.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((16, 16, 3), np.uint8), "expected a float32 image in .0, 1., got uint8"),
        (np.zeros((16, 16, 3), np.float64), "got float64"),
        (np.zeros((16, 16), np.float32), r"expected an image of shape \(H, W, 3\)"),
        (np.zeros((16, 16, 4), np.float32), r"expected an image of shape \(H, W, 3\)"),
        (np.zeros((7, 16, 3), np.float32), "H, W >= 8"),
        (np.full((16, 16, 3), 2, np.float32), "expected values in .0, 1., got 2 to 2"),
        (np.full((16, 16, 3), np.nan, np.float32), "expected values in"),
    ],
)
def test_other_images_are_refused(name, bad, message):
    kind = getattr(degradations, name)
    numbers = {key: low for key, (low, _) in kind.bounds.items()}
    with pytest.raises(ValueError, match=message):
        kind.function(bad, np.random.default_rng(0), **numbers)


@pytest.mark.parametrize("name", NAMES)
def test_functions_refuse_numbers_out_of_range(name):
    kind = getattr(degradations, name)
    numbers = {key: low for key, (low, _) in kind.bounds.items()}
    for key, (low, high) in kind.bounds.items():
        for bad in (low - 1, high + 1, float("nan"), "1", None):
            with pytest.raises(ValueError, match=f"{key}: expected a number from"):
                kind.function(picture(16, 16), np.random.default_rng(0), **{**numbers, key: bad})


@pytest.mark.parametrize("ladder", LADDERS)
def test_no_severity_is_identity_and_more_is_worse(ladder):
    function, fixed, name, values = LADDERS[ladder]
    image = picture()

    def damaged(value, seed):
        return function(image, np.random.default_rng(seed), **fixed, **{name: value})

    errors = [np.mean([mean_error(image, damaged(value, seed)) for seed in range(4)]) for value in values]
    none = damaged(values[0], seed=0)
    np.testing.assert_allclose(none, image, atol=1e-6)
    assert not np.shares_memory(none, image)
    assert all(np.diff(errors) > 0), errors


def test_importing_forbids_albumentations_to_ask_for_versions():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
