"""PSNR and SSIM on pairs, and the pairs of folders of real pairs."""

import pickle

import cv2
import numpy as np
import pytest

from ipt.model import InstructIPT
from pipelines.common.params import RealPairs
from pipelines.data.metrics import psnr, ssim
from pipelines.data.pairs import load_validation
from pipelines.scoring import scores
from pipelines.scoring.real_pairs import read_real_pairs
from pipelines.scoring.scores import score_harm, score_pairs
from pipelines.training.validation import validate


@pytest.fixture(scope="module")
def identity(make_config):
    """A model at its start restores nothing."""
    return InstructIPT(make_config()).eval()


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


def test_an_identity_model_scores_as_the_degraded_input(identity, pairs):
    score = score_pairs({"identity": identity}, "deblur", pairs["deblur"])
    assert score["identity"] == score["degraded"]
    of_task = [(psnr(*pair), ssim(*pair)) for pair in pairs["deblur"]]
    assert score["degraded"]["psnr"] == pytest.approx(np.mean([p for p, _ in of_task]), abs=0.006)
    assert score["degraded"]["ssim"] == pytest.approx(np.mean([s for _, s in of_task]), abs=0.00006)
    assert score["images"] == 4
    assert validate(identity, pairs)["deblur"] == pytest.approx(np.mean([p for p, _ in of_task]))


def test_pairs_of_a_folder_are_matched_by_name(real, tmp_path):
    pairs = list(read_real_pairs(real, 0))
    assert len(pairs) == 3
    for name, (degraded, clean) in zip("abc", pairs, strict=True):
        for folder, image in (("degraded", degraded), ("clean", clean)):
            levels = cv2.imread(str(tmp_path / folder / f"{name}.png"))[..., ::-1]
            np.testing.assert_array_equal(np.rint(image * 255), levels)


def test_added_noise_has_its_sigma_and_depends_on_seed_name_and_file(tmp_path):
    (tmp_path / "clean").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "clean" / f"{name}.png"), np.full((100, 120, 3), 128, np.uint8))
    real = RealPairs("noisy", str(tmp_path), "denoise", 20.0)
    (first, clean), (second, _) = read_real_pairs(real, 0)
    assert first.dtype == np.float32
    assert (clean == np.float32(128 / 255)).all()
    noise = (first - clean) * 255
    assert noise.std() == pytest.approx(20, rel=0.03)
    assert abs(noise.mean()) < 0.5
    np.testing.assert_allclose(first * 255, np.rint(first * 255), atol=1e-4)
    np.testing.assert_array_equal(next(read_real_pairs(real, 0))[0], first)
    (tmp_path / "clean" / "a.png").unlink()
    np.testing.assert_array_equal(next(read_real_pairs(real, 0))[0], second)  # whatever else is there
    renamed = RealPairs("other", str(tmp_path), "denoise", 20.0)
    for other in (
        second,
        next(read_real_pairs(real, 1))[0],
        next(read_real_pairs(renamed, 0))[0],
    ):
        assert not np.array_equal(other, first)
    assert not np.array_equal(next(read_real_pairs(renamed, 0))[0], second)


def test_noise_is_clipped_to_the_range(tmp_path):
    (tmp_path / "clean").mkdir()
    cv2.imwrite(str(tmp_path / "clean" / "a.png"), np.full((20, 20, 3), 255, np.uint8))
    ((noisy, _),) = read_real_pairs(RealPairs("n", str(tmp_path), "denoise", 50.0), 0)
    assert noisy.max() == 1
    assert noisy.min() >= 0


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "clean").mkdir()
    with pytest.raises(FileNotFoundError, match="clean: expected images of empty, found none"):
        list(read_real_pairs(RealPairs("empty", str(tmp_path), "derain", None), 0))


def test_hidden_files_are_no_pairs_and_a_missing_clean_image_is_named(real, tmp_path):
    for folder in ("degraded", "clean"):
        (tmp_path / folder / ".DS_Store").write_text("of the Finder")
    assert len(list(read_real_pairs(real, 0))) == 3
    (tmp_path / "clean" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"clean/b\.png: not there, but .*degraded/b\.png is; .*\(1 without"):
        list(read_real_pairs(real, 0))


def test_a_missing_degraded_image_is_named(real, tmp_path):
    (tmp_path / "degraded" / "b.png").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"degraded/b\.png"):
        list(read_real_pairs(real, 0))


def test_sizes_that_differ_are_named(real, tmp_path):
    cv2.imwrite(str(tmp_path / "degraded" / "b.png"), np.zeros((16, 21, 3), np.uint8))
    with pytest.raises(ValueError, match=r"degraded/b\.png: expected \(16, 20, 3\), got \(16, 21, 3\)"):
        list(read_real_pairs(real, 0))


def test_scores_are_those_of_one_part_however_they_are_cut_and_wherever_they_are_made(
    make_config, fill_parameters, pairs, monkeypatch
):
    model = fill_parameters(InstructIPT(make_config()), 0).eval()
    made, harm = score_pairs({"model": model}, "deblur", pairs["deblur"]), score_harm(model, pairs)
    monkeypatch.setattr(scores, "AT_ONCE", 2 * 16 * 16)
    assert [len(part) for part in scores.few_at_a_time(pairs["deblur"][:3])] == [2, 1]
    asked = []

    def elsewhere(function, items):
        for item in items:
            asked.append(item)
            yield pickle.loads(pickle.dumps(function))(item)

    assert score_pairs({"model": model}, "deblur", iter(pairs["deblur"]), elsewhere) == made
    assert len(asked) == 2
    assert score_harm(model, pairs, elsewhere) == harm
    assert asked[2:] == [*model.config.tasks, None]
