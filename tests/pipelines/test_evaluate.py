"""Scores: of the degraded input and of each model, on pairs and on folders of real pairs."""

import json

import cv2
import numpy as np
import pytest

from ipt.model import InstructIPT
from ipt.pixels import to_levels
from ipt.restoring.restore import restore_image
from pipelines.common.params import RealPairs
from pipelines.data.metrics import psnr
from pipelines.data.pairs import load_validation
from pipelines.data.png import encode_png
from pipelines.evaluate import (
    draw_comparison,
    evaluate,
    headline,
    print_table,
    score_real_pairs,
    write_pictures,
)
from pipelines.training.validation import validate


@pytest.fixture(scope="module")
def identity(make_config):
    """A model at its start restores nothing."""
    return InstructIPT(make_config()).eval()


@pytest.fixture(scope="module")
def models(make_config, fill_parameters, identity):
    return {
        "trained": fill_parameters(InstructIPT(make_config()), 0).eval(),
        "compressed": identity,
    }


@pytest.fixture(scope="module")
def pairs(shards):
    return load_validation(shards, ("deblur", "denoise"), 4)


@pytest.fixture
def real(tmp_path):
    """Three pairs of 8-bit images on disk, and where they lie."""
    for number, folder in enumerate(("clean", "degraded")):
        (tmp_path / folder).mkdir()
        for name in ("b", "a", "c"):
            levels = np.random.default_rng([number, ord(name)]).integers(0, 256, (16, 20, 3), np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), levels)
    return RealPairs("pairs", str(tmp_path), "derain", None)


def test_held_out_pairs_are_as_many_as_asked_spread_over_the_shards(shards):
    few, many = (
        load_validation(shards, ("deblur",), 3)["deblur"],
        load_validation(shards, ("deblur",), 99)["deblur"],
    )
    assert (len(few), len(many)) == (3, 13)
    for chosen, place in zip(few, (0, 6, 12), strict=True):
        np.testing.assert_array_equal(chosen[0], many[place][0])
        np.testing.assert_array_equal(chosen[1], many[place][1])


def test_each_model_scores_its_own_restored_images(models, pairs):
    scores = evaluate(models, pairs)
    assert list(scores) == ["deblur", "denoise", "overall"]
    for task, of_task in pairs.items():
        restored = [psnr(restore_image(models["trained"], d, task=task), c) for d, c in of_task]
        assert scores[task]["trained"]["psnr"] == pytest.approx(np.mean(restored), abs=0.006)
        assert validate(models["trained"], {task: of_task})[task] == pytest.approx(np.mean(restored), abs=0.01)
    assert scores["overall"]["images"] == 8
    for output in ("degraded", "trained", "compressed"):
        for measure in ("psnr", "ssim"):
            mean = np.mean([scores[task][output][measure] for task in pairs])
            assert scores["overall"][output][measure] == pytest.approx(mean, abs=1e-4)
    assert json.loads(json.dumps(scores)) == scores


def test_the_headline_is_the_compressed_models_and_few_numbers(models, pairs, real):
    scores = evaluate(models, pairs)
    of_real = score_real_pairs([real], models, models["compressed"], 0)
    told = headline(scores, of_real, 1234, 0.56789)
    assert list(told) == ["tasks", "real_pairs", "bytes", "seconds_per_megapixel"]
    assert (told["bytes"], told["seconds_per_megapixel"]) == (1234, 0.568)
    assert (list(told["tasks"]), list(told["real_pairs"])) == (["deblur", "denoise", "overall"], ["pairs"])
    for name, score in (scores | of_real).items():
        row = (told["tasks"] | told["real_pairs"])[name]
        assert row["restored"] == score["compressed"]["psnr"] != score["trained"]["psnr"]
        assert row == {"degraded": score["degraded"]["psnr"], "restored": row["restored"], "gain": row["gain"]}
        assert row["gain"] == pytest.approx(row["restored"] - row["degraded"], abs=1e-3)
    untold = headline({"derain": {"degraded": {"psnr": 20.1}, "compressed": {"psnr": 30.3}}}, {}, 1, 1.0)
    assert untold["tasks"] == {"derain": {"degraded": 20.1, "restored": 30.3, "gain": 10.2}}  # no 10.199999999999999
    assert untold["real_pairs"] == {}


def test_real_pairs_that_is_absent_is_said_so_and_left_out(models, real, tmp_path, capsys):
    absent = RealPairs("absent", str(tmp_path / "nowhere"), "derain", None)
    scores = score_real_pairs([absent, real], models, models["compressed"], 0)
    assert list(scores) == ["pairs"]
    assert scores["pairs"]["task"] == "derain"
    assert scores["pairs"]["images"] == 3
    assert capsys.readouterr().out == (f"evaluate: absent skipped: {tmp_path}/nowhere/clean is not there\n")
    print_table(scores)
    line = capsys.readouterr().out
    assert line.startswith("evaluate: pairs ")
    assert f"{scores['pairs']['degraded']['psnr']:.2f}" in line


def test_a_comparison_holds_the_three_images_under_their_captions(pairs):
    degraded, clean = pairs["deblur"][0]
    sheet = draw_comparison(degraded, clean, clean)
    assert sheet.shape == (16 + 20, 3 * 16 + 8, 3)
    for number, image in enumerate((degraded, clean, clean)):
        np.testing.assert_array_equal(sheet[20:, number * 20 : number * 20 + 16], to_levels(image))
    assert sheet[:20].min() < 128  # something is written


def test_pictures_show_median_damage_among_the_half_with_the_most_contrast(models, pairs, tmp_path):
    write_pictures(models["trained"], pairs, tmp_path / "restored")
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == [
        "deblur.png",
        "denoise.png",
    ]
    contrasty = sorted(pairs["deblur"], key=lambda pair: pair[1].std())[2:]
    degraded, clean = max(contrasty, key=lambda pair: psnr(*pair))  # of two, the upper is the median
    restored = restore_image(models["trained"], degraded, task="deblur")
    expected = encode_png(draw_comparison(degraded, restored, clean))
    assert (tmp_path / "restored" / "deblur.png").read_bytes() == expected
