"""The gate: every rule lets an equal candidate through and stops one that is worse, and names the row."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from pipelines.common.params import load_params
from pipelines.promotion.gate import LACKS, failures, judge, table
from pipelines.scoring.scorecard import Score, Scorecard

LIMITS = load_params(Path(__file__).parents[3] / "params.yaml").promote
FLOORS = LIMITS.floors


def score(task, psnr=30.0, **changes) -> Score:
    given = Score(task, 4, {"psnr": 25.0, "ssim": 0.5}, {"psnr": psnr, "ssim": 0.9}, 0.9, 0.95)
    return dataclasses.replace(given, **changes)


def card(**changes) -> Scorecard:
    values = {
        "tasks": {task: score(task) for task in ("denoise", "derain")},
        "real_pairs": {"rain100l": score("derain")},
        "understood": 0.9,
        "harm": {"blind": {"clean": 1.0, "denoise": 3.0, "derain": 3.0}, "derain": {"clean": 99.0, "denoise": -99.0}},
        "megabytes": 3.0,
        "seconds_per_megapixel": 1.0,
    }
    return Scorecard(**(values | changes))


def with_task(of, name, **changes) -> Scorecard:
    given = card()
    return dataclasses.replace(given, **{of: getattr(given, of) | {name: score("derain", **changes)}})


def with_harm(**changes) -> Scorecard:
    return card(harm={"blind": card().harm["blind"] | changes})


def test_an_equal_candidate_passes_every_row():
    rows = judge(card(), card(), [], LIMITS)
    assert failures(rows) == []
    assert [row.name for row in rows] == [
        "psnr/denoise", "psnr/derain", "psnr/rain100l", "psnr/mean", "instructions", "seen", "clean",
        "harm/clean", "harm/denoise", "harm/derain", "megabytes", "seconds_per_megapixel",
    ]  # fmt: skip
    assert all(row.champion is not None for row in rows)


WORSE = [
    (with_task("tasks", "derain", psnr=30 - LIMITS.psnr_loss - 0.01), {"psnr/derain", "psnr/mean"}),
    (with_task("tasks", "derain", psnr=30 - LIMITS.mean_loss - 0.01), {"psnr/mean"}),
    (with_task("real_pairs", "rain100l", psnr=30 - LIMITS.psnr_loss - 0.01), {"psnr/rain100l"}),
    (with_task("tasks", "derain", psnr=math.nan), {"psnr/derain", "psnr/mean"}),
    (card(understood=0.9 - LIMITS.accuracy_loss - 0.01), {"instructions"}),
    (with_task("tasks", "derain", damage_seen=0.9 - 3 * LIMITS.accuracy_loss - 0.01), {"seen"}),
    (with_task("tasks", "derain", clean_seen=0.95 - 3 * LIMITS.accuracy_loss - 0.01), {"clean"}),
    (with_harm(clean=LIMITS.clean_change + 0.01), {"harm/clean"}),
    (with_harm(denoise=-LIMITS.damage_loss - 0.01), {"harm/denoise"}),
    (with_harm(denoise=math.nan), {"harm/denoise"}),
    (card(megabytes=3 * LIMITS.growth + 0.01), {"megabytes"}),
    (card(seconds_per_megapixel=LIMITS.growth + 0.01), {"seconds_per_megapixel"}),
]


@pytest.mark.parametrize(("candidate", "failed"), WORSE, ids=[" ".join(sorted(failed)) for _, failed in WORSE])
def test_what_is_worse_is_refused_and_named(candidate, failed):
    assert set(failures(judge(candidate, card(), [], LIMITS))) == failed


def test_a_loss_within_the_limit_passes():
    better = card(tasks={"denoise": score("denoise", 31.0), "derain": score("derain", 30 - LIMITS.psnr_loss)})
    assert failures(judge(better, card(), [], LIMITS)) == []


def test_limits_hold_whatever_the_champion_is():
    huge = card(megabytes=LIMITS.megabytes + 1, seconds_per_megapixel=LIMITS.seconds_per_megapixel + 1)
    assert failures(judge(huge, huge, [], LIMITS)) == ["megabytes", "seconds_per_megapixel"]
    harmful = with_harm(clean=LIMITS.clean_change + 1, derain=-LIMITS.damage_loss - 1)
    assert failures(judge(harmful, harmful, [], LIMITS)) == ["harm/clean", "harm/derain"]


def test_without_a_champion_the_floors_decide():
    rows = judge(card(), None, [], LIMITS)
    assert failures(rows) == []
    assert all(row.champion is None for row in rows)
    bars = {row.name: row.bar for row in rows}
    assert bars["psnr/derain"] == 25 + FLOORS.gain
    assert bars["psnr/mean"] == 25 + FLOORS.mean_gain
    assert (bars["instructions"], bars["seen"], bars["clean"]) == (FLOORS.instructions, FLOORS.seen, FLOORS.clean)
    poor = card(
        tasks={"denoise": score("denoise", 25 + FLOORS.gain - 0.01, damage_seen=0.0, clean_seen=0.0)},
        understood=FLOORS.instructions - 0.01,
    )
    assert failures(judge(poor, None, [], LIMITS)) == ["psnr/denoise", "psnr/mean", "instructions", "seen", "clean"]


def test_a_task_that_the_champion_lacks_is_held_to_the_floors_and_the_mean_leaves_it_out():
    new = score("polish", 25 + FLOORS.gain, damage_seen=FLOORS.seen)
    candidate = card(tasks=card().tasks | {"polish": new})
    rows = {row.name: row for row in judge(candidate, card(), [], LIMITS)}
    assert all(row.passed for row in rows.values())
    assert rows["psnr/polish"].champion is None
    assert rows["psnr/mean"].candidate == rows["psnr/mean"].champion == 30
    for field, value, name in (
        ("restored", {"psnr": 25 + FLOORS.gain - 0.01, "ssim": 1.0}, "psnr/polish"),
        ("damage_seen", FLOORS.seen - 0.01, "seen/polish"),
    ):
        worse = card(tasks=card().tasks | {"polish": dataclasses.replace(new, **{field: value})})
        assert failures(judge(worse, card(), [], LIMITS)) == [name]


def test_a_task_that_the_candidate_lacks_is_a_refusal():
    candidate = card(tasks={"denoise": score("denoise", 99.0)}, real_pairs={})
    rows = judge(candidate, card(tasks={"denoise": score("denoise")}), ["derain"], LIMITS)
    assert failures(rows) == ["psnr/derain"]
    assert LACKS in table(rows)


def test_real_pairs_named_as_a_task_hides_nothing():
    worse = card(tasks={"derain": score("derain", 20.0)}, real_pairs={"derain": score("derain")})
    rows = judge(worse, card(tasks={"derain": score("derain")}, real_pairs={"derain": score("derain")}), [], LIMITS)
    assert failures(rows) == ["psnr/derain", "psnr/mean"]
    assert [row.name for row in rows].count("psnr/derain") == 2


def test_the_table_is_markdown_with_a_line_for_each_row():
    rows = judge(with_harm(clean=99.0), card(), [], LIMITS)
    head, rule, *lines = table(rows).splitlines()
    assert len({len(line) for line in (head, rule, *lines)}) == 1  # aligned
    assert set(rule) == {"|", "-", " "}
    assert len(lines) == len(rows)
    for line, row in itertools.zip_longest(lines, rows):
        assert [cell.strip() for cell in line.strip("|").split("|")] == list(row.cells())
    assert sum("FAIL" in line for line in lines) == 1
    assert next(line for line in lines if "FAIL" in line).startswith("| harm/clean")
