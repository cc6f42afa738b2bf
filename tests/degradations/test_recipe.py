"""Recipes: what is refused and how, seeds, and what a row depends on."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from degradations.recipe import check_recipe, degrade, rng_for

CHAIN = [
    {"Rain": {"density": [500, 3000], "p": 0.8}},
    {"GaussianBlur": {"sigma_limit": [0.5, 1.0], "p": 0.5}},
    {"GaussianNoise": {"sigma": [5, 20]}},
    {"ImageCompression": {"quality_range": [40, 90]}},
]


def picture(seed=0):
    return np.random.default_rng(seed).random((48, 40, 3), np.float32)


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_good_recipes_pass():
    check_recipe(CHAIN, "tasks.mixed.recipe")
    check_recipe([{"Haze": None}], "tasks.dehaze.recipe")
    check_recipe([{"Haze": {}}], "tasks.dehaze.recipe")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"Rain": {}}, r"^t: expected a list of at least one transform"),
        ([], r"^t: expected a list of at least one transform"),
        (["Rain"], r"^t\[0\]: expected one {Transform: {argument: value}}"),
        ([{"Rain": {}, "Snow": {}}], r"^t\[0\]: expected one"),
        ([{"Rain": [1]}], r"^t\[0\].Rain: expected arguments by name"),
        (
            [{"Rain": {}}, {"GausianNoise": {}}],
            r"^t\[1\]: unknown transform 'GausianNoise'; did you mean 'GaussianNoise'\?",
        ),
        ([{"ISONoize": {}}], r"^t\[0\]: unknown transform 'ISONoize'; did you mean 'ISONoise'\?"),
        ([{3: {}}], r"^t\[0\]: unknown transform 3"),
        (
            [{"GaussianNoise": {"sgima": 3}}],
            r"^t\[0\]: GaussianNoise has no argument 'sgima'; did you mean 'sigma'\?",
        ),
        ([{"Rain": {"zzz": 3}}], r"^t\[0\]: Rain has no argument 'zzz'; it takes density"),
        ([{"MotionBlur": {"blur_limt": 3}}], r"no argument 'blur_limt'; did you mean 'blur_limit'"),
        ([{"GaussianNoise": {"sigma": [5, 999]}}], r"^t\[0\]: GaussianNoise.sigma: expected val"),
        ([{"GaussianNoise": {"sigma": [50, 5]}}], r"^t\[0\]: GaussianNoise.sigma: expected lo <="),
        ([{"GaussianNoise": {"p": 2}}], r"^t\[0\].GaussianNoise.p: expected values from 0 to 1"),
        ([{"ImageCompression": {"quality_range": [50, 900]}}], r"^t\[0\]: "),
        ([{"HorizontalFlip": {}}], r"^t\[0\]: HorizontalFlip moves pixels"),
        ([{"FromFloat": {}}], r"^t\[0\]: FromFloat turns a float32 .* into uint8"),
        ([{"FDA": {}}], r"^t\[0\]: FDA cannot be used: "),
        ([{"Compose": {}}], r"^t\[0\]: unknown transform 'Compose'"),
    ],
)
def test_bad_recipes_are_refused_with_their_place(recipe, message):
    with pytest.raises(ValueError, match=message):
        check_recipe(recipe, "t")


def test_rng_for_is_the_same_everywhere():
    assert rng_for(0, "derain", "a", 1).integers(2**63) == 9051897967866526175


def test_rng_for_differs_with_each_of_its_four():
    keys = [
        (0, "rain", "a", 1),
        (1, "rain", "a", 1),
        (0, "snow", "a", 1),
        (0, "rain", "b", 1),
        (0, "rain", "a", 2),
    ]
    assert len({int(rng_for(*key).integers(2**63)) for key in keys}) == 5


def test_degrade_keeps_its_input_and_the_contract():
    clean = picture()
    before = clean.copy()
    degraded, severity = degrade(clean, CHAIN, rng_for(0, "t", "a", 0))
    assert np.array_equal(clean, before)
    assert degraded.shape == clean.shape
    assert degraded.dtype == np.float32
    assert 0 <= degraded.min() <= degraded.max() <= 1
    assert list(severity) == [next(iter(step)) for step in CHAIN]
    assert json.loads(json.dumps(severity)) == severity


def test_severity_holds_the_numbers_of_ours_and_theirs():
    _, severity = degrade(picture(), CHAIN[2:], rng_for(0, "t", "a", 0))
    assert 5 <= severity["GaussianNoise"]["sigma"] <= 20
    assert 40 <= severity["ImageCompression"]["quality"] <= 90


def test_a_skipped_chain_is_the_clean_image_and_says_so():
    clean = picture()
    recipe = [{"Rain": {"p": 0}}, {"ISONoise": {"p": 0.0}}]
    degraded, severity = degrade(clean, recipe, rng_for(0, "t", "a", 0))
    assert np.array_equal(degraded, clean)
    assert severity == {"Rain": None, "ISONoise": None}


def test_probability_is_a_share_of_rows():
    recipe = [{"GaussianNoise": {"p": 0.3}}]
    drawn = [degrade(picture(), recipe, rng_for(0, "t", "a", i))[1] for i in range(200)]
    assert 35 < sum(severity["GaussianNoise"] is not None for severity in drawn) < 85


def test_a_repeated_step_has_a_severity_of_its_own():
    recipe = [{"Rain": {"angle": -20}}, {"Rain": {"angle": 20}}, {"Rain": {"angle": 0}}]
    _, severity = degrade(picture(), recipe, rng_for(0, "t", "a", 0))
    assert {key: value["angle"] for key, value in severity.items()} == {
        "Rain": -20,
        "Rain#2": 20,
        "Rain#3": 0,
    }


def test_a_steps_probability_changes_nothing_in_the_next():
    with_first, without = (
        degrade(picture(), [{"Haze": {"p": p}}, {"GaussianNoise": {}}], rng_for(0, "t", "a", 0))[1] for p in (1, 0)
    )
    assert with_first["GaussianNoise"] == without["GaussianNoise"]


def test_rows_do_not_depend_on_one_another():
    def row(index):
        return digest(degrade(picture(index), CHAIN, rng_for(7, "t", f"image {index}", 0))[0])

    alone = row(3)
    forwards = [row(index) for index in range(5)]
    backwards = [row(index) for index in reversed(range(5))]
    assert forwards == backwards[::-1]
    assert forwards[3] == alone
    assert len(set(forwards)) == 5


def test_another_process_makes_the_same_bytes():
    recipe = [{name: {}} for name in ("CameraShake", "Haze", "Rain", "Snow", "SensorNoise")]
    code = (
        "import hashlib, numpy as np\n"
        "from degradations.recipe import degrade, rng_for\n"
        "clean = np.random.default_rng(0).random((48, 40, 3), np.float32)\n"
        f"image, _ = degrade(clean, {recipe!r}, rng_for(7, 't', 'a', 0))\n"
        "print(hashlib.sha256(image.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here, _ = degrade(picture(), recipe, rng_for(7, "t", "a", 0))
    assert other.stdout.strip() == digest(here)


def test_degrade_refuses_what_check_recipe_would():
    with pytest.raises(ValueError, match=r"recipe\[0\]: unknown transform 'Fog'"):
        degrade(picture(), [{"Fog": {}}], rng_for(0, "t", "a", 0))
    with pytest.raises(ValueError, match="degrade: expected a float32 image"):
        degrade(picture().astype(np.float64), CHAIN, rng_for(0, "t", "a", 0))
