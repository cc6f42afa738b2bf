"""The model card says what is measured, and what is measured anew replaces only that."""

from pathlib import Path

import pytest

from pipelines.common.params import load_params
from pipelines.registry.card import (
    LONGEST,
    MEASURED,
    Provenance,
    as_description,
    known_failures,
    measured_anew,
    model_card,
)
from pipelines.scoring.scorecard import Score, Scorecard, of_reports

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
ORIGIN = Provenance("abc123", "2026-01-02", "2 CPU threads (x86_64)")


def scores(psnr=30.0, seen=1.0, clean=1.0, harm=None) -> Scorecard:
    score = Score("derain", 7, {"psnr": 25.0, "ssim": 0.5}, {"psnr": psnr, "ssim": 0.9}, seen, clean)
    harm = harm or {"derain": {"clean": 0.0, "derain": 5.0}, "blind": {"clean": 50.0, "derain": -9.0}}
    return Scorecard({"derain": score}, {"real": score}, 0.75, harm, 2.5, 1.25)


@pytest.fixture(scope="module")
def card(make_config):
    return model_card("instruct-ipt", make_config(), PARAMS, "hash", scores(), ORIGIN)


def test_the_card_tells_what_data_protocol_numbers_size_and_speed(card):
    assert card.startswith("# instruct-ipt\n")
    assert "denoise, derain, deblur" in card
    assert "scikit-image" in card
    assert "48 procedural dead-leaves pictures" in card
    assert "`hash`" in card
    assert "vectors of GloVe" in card
    assert "no border crop" in card
    assert "2026-01-02, commit abc123, 2 CPU threads (x86_64)." in card
    for name in ("derain", "real"):
        assert f"| {name} | 7 | 25.00 / 0.500 | 30.00 / 0.900 | 100% | 100% |" in card
    assert "75.0%" in card
    assert "2.50 MB" in card
    assert "1.25 s per megapixel" in card


def test_what_is_measured_anew_replaces_that_part_only(card):
    anew = measured_anew(card, scores(psnr=31.0), ORIGIN)
    assert anew.partition(MEASURED)[0] == card.partition(MEASURED)[0]
    assert "31.00 / 0.900" in anew
    assert "30.00 / 0.900" not in anew
    assert anew.count(MEASURED) == 1
    assert measured_anew(anew, scores(), ORIGIN) == card


def test_failures_are_those_that_the_numbers_show():
    assert len(known_failures(scores())) == 1
    told = known_failures(scores(psnr=25.1, seen=0.6, clean=0.7))
    assert "derain: +0.10 dB only." in told
    assert "derain: left to itself it sees the damage in 60% only." in told
    assert "derain: left to itself it sees that clean images are clean in 70% only." in told
    assert "derain: left to itself it never sees the damage." in known_failures(scores(seen=0.0))
    harm = {"derain": {"clean": 9.0, "derain": 5.0, "denoise": -3.0}}
    told = " ".join(known_failures(scores(harm=harm)))
    assert "derain, named where there is nothing to do: clean tiles change by 9.0 levels." in told
    assert "derain, named for another's damage: denoise -3.0 dB." in told


def test_a_description_is_no_longer_than_databases_take(card):
    assert as_description(card) == card
    long = as_description("x" * (LONGEST + 1))
    assert len(long) == LONGEST
    assert long.endswith("(whole in MODEL_CARD.md among the run's artifacts)")
    assert as_description("x" * LONGEST) == "x" * LONGEST


def test_a_scorecard_of_reports_is_the_compressed_models():
    score = {
        "images": 3, "degraded": {"psnr": 20.0, "ssim": 0.1}, "trained": {"psnr": 1.0, "ssim": 0.2},
        "compressed": {"psnr": 30.0, "ssim": 0.3}, "seen": {"degraded": 0.4, "clean": 0.5},
    }  # fmt: skip
    evaluation = {
        "tasks": {"derain": score, "overall": {"images": 3}},
        "real_pairs": {"real": score | {"task": "derain"}},
        "harm": {"blind": {"clean": 1.0}},
    }
    card = of_reports(evaluation, {"a": {"one": 0.25, "two": 1.0}, "all": {"understood": 0.5}}, 2_500_000, 1.5)
    expected = Score("derain", 3, {"psnr": 20.0, "ssim": 0.1}, {"psnr": 30.0, "ssim": 0.3}, 0.4, 0.5)
    assert card.tasks == {"derain": expected}
    assert card.real_pairs == {"real": expected}
    assert (card.megabytes, card.seconds_per_megapixel, card.understood) == (2.5, 1.5, 0.5)
