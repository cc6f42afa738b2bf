"""The diffusion benchmark's rows start alike, meet the same batches, are kept, and are told as they are."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from benchmarks import denoisers, diffusion
from benchmarks.denoisers import RANKS, ROWS, Row, Unconditional, base, build, check_numbers, first_timesteps, one_step
from benchmarks.diffusion import Bench, difference, results, table, write
from ipt.network.modulation import task_parameters
from ipt.training.fit import TrainingState
from pipelines.common.params import DeadLeaves


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Little to learn from and to measure on, in a place of this test's own."""
    for name, value in {
        "RESULTS": tmp_path / "kept", "DRAWN": DeadLeaves(6, 64), "HELD_OUT": 8, "SAMPLES": 4, "SAMPLING_STEPS": 2,
        "TO_CUT_BY": 16, "BASE_STEPS": 2, "CHECK_EVERY": 1, "STEPS": 1, "BATCH": 4,
    }.items():  # fmt: skip
        monkeypatch.setattr(denoisers, name, value)
    some = {
        name: ROWS[name]
        for name in ("start", "plain", "one LoRA", "equal intervals", "fitted intervals and ranks, 15%")
    }
    for module in (denoisers, diffusion):
        monkeypatch.setattr(module, "ROWS", some)
        monkeypatch.setattr(module, "TRIED", dict.fromkeys(denoisers.TRIED, (1e-3,)))
    return tmp_path


def test_rows_start_as_the_plain_denoiser_and_have_equally_many_numbers():
    weights, x, t = denoisers.backbone().state_dict(), torch.rand(4, 3, 16, 16), torch.tensor([3, 200, 500, 900])
    expected = Unconditional(build(Row(), weights, [])).eval()(x, t)[0]
    added = set()
    for name, row in ROWS.items():
        network = Unconditional(build(row, weights, [] if row.cut == "one" else [30, 250, 680])).eval()
        torch.testing.assert_close(network(x, t)[0], expected, atol=1e-5, rtol=1e-5)
        added.add(sum(p.numel() for p in task_parameters(network)))
        learning = [p for p in network.parameters() if p.requires_grad]
        assert len(learning) == len(list(network.parameters()) if row.free or not row.cut else task_parameters(network))
        assert row.outside == (0.15 if "15%" in name else 0)
    assert len(added) == 2  # of none and of all others
    assert sum(RANKS) % 4 == 0


def test_what_a_step_meets_depends_on_seed_and_step_alone(few, monkeypatch):
    met = []
    monkeypatch.setattr(
        denoisers, "denoising_step", lambda state, network, schedule, *batch, **given: met.append(batch)
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    rows = Row(free=True), Row("equal", RANKS, free=True), Row("equal", RANKS, outside=0.9)
    for row in rows:
        network = build(row, denoisers.backbone().state_dict(), first_timesteps("equal", lambda: images, "leaves"))
        state = TrainingState(Unconditional(network), denoisers.settings(20, 1e-3, 1e-3, 0.9))
        for step, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
            state.step = step
            one_step(state, images, seed, row.outside)
    # In what order a row meets them is its own affair.
    sums = np.array(
        [
            [
                float(
                    (part.flatten(1).double() if part.dim() > 1 else part.double()[:, None]).sum(1).sort()[0]
                    @ torch.arange(4.0, dtype=torch.float64)
                )
                for part in batch
            ]
            for batch in met
        ]
    )
    sums = sums.reshape(len(rows), 4, 3).sum(2)
    np.testing.assert_allclose(sums, np.broadcast_to(sums[0], sums.shape), rtol=1e-12)
    assert sums[0, 0] == sums[0, 3]
    assert len(set(sums[0])) == 3
    clean, timesteps, noise = met[0]
    assert clean.shape == noise.shape == (4, 3, 16, 16)
    assert denoisers.levels()[timesteps].tolist() == [0, 1, 2, 3]


def test_the_base_goes_on_where_it_was_stopped(few, monkeypatch):
    monkeypatch.setattr(denoisers, "BASE_STEPS", 4)
    whole = base()
    monkeypatch.setattr(denoisers, "RESULTS", few / "stopped")
    real, steps = one_step, []
    monkeypatch.setattr(denoisers, "one_step", lambda *what, **more: steps.append(1) or real(*what, **more))
    monkeypatch.setattr(denoisers, "interval_errors", interrupted(3, denoisers.interval_errors))
    with pytest.raises(KeyboardInterrupt):
        base()
    parts = base()
    assert len(steps) == 5  # the third was not kept
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert [each["step"] for each in json.loads((few / "stopped" / "base" / "curve.json").read_text())] == [1, 2, 3, 4]


def interrupted(call, function):
    """`function`, whose call of that number ends as by Ctrl-C."""
    calls = []

    def called(*what, **more):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*what, **more)

    return called


def test_every_row_is_measured_once_in_both_regimes_and_told(few, monkeypatch):
    (few / "photographs").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        image = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (128, 128))
        cv2.imwrite(str(few / "photographs" / f"{number}.png"), image)
    report, curve = few / "report.md", few / "curve.png"
    report.write_text(f"before\n{diffusion.BEGIN}old\n<!-- end -->\nafter\n")
    monkeypatch.setattr(diffusion, "REPORT", report)
    monkeypatch.setattr(diffusion, "CURVE", curve)
    bench = Bench(few / "photographs")
    first = {(r, n, s): bench.row(n, r, s) for s in (0, 1) for r in bench.regimes for n in diffusion.ROWS}
    monkeypatch.setattr(denoisers, "measure", None)
    assert {key: bench.row(key[1], key[0], key[2]) for key in first} == first
    assert all(len(each["errors"]) == 4 and each["floor"] > 0 for each in first.values())
    assert first["leaves", "start", 0]["errors"] != first["leaves", "plain", 0]["errors"]
    write([0, 1])
    text = report.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert text.count("| fitted intervals and ranks, 15% |") == 4
    assert text.count("First timesteps: equal [") == 2
    assert "from step 1 to 2 its mean held-out error changed by" in text
    assert curve.is_file()
    assert list(results("leaves", [0, 1, 2])) == []


def result(*errors, distance=0.25):
    return {"added": 1500, "errors": list(errors), "distance": distance, "floor": 0.125}


def test_differences_are_paired_by_seed_and_bold_where_they_are_sure():
    plain = [result(1.0, 1.0), result(1.1, 2.0), result(1.2, 3.0)]
    row = [result(0.9, 0.7), result(1.0, 2.4), result(1.1, 3.0)]
    first, second, mean = difference(row, plain)
    assert first == "**-9.09 ± 0.00**"  # 0.1 lower in each, of 1.1
    # of 2.0: -15, +20 and 0 %: mean 1.67, deviation 17.56; t of 2 degrees of freedom 4.303
    assert second == "+1.67 ± 43.62"
    assert not mean.startswith("**")


def test_the_table_has_errors_in_one_row_and_differences_in_the_others(monkeypatch):
    monkeypatch.setattr(diffusion, "INTERVALS", 2)
    found = {"start": [result(2.0, 4.0), result(4.0, 4.0)], "plain": [result(1.0, 2.0), result(3.0, 4.0)]}
    lines = table(found, "plain").splitlines()
    assert lines[0] == "|  | biases | level 0 | level 1 | mean | distance |"
    assert lines[2].startswith("| start | 2 k | +50.00 ± 0.00") or lines[2].startswith(
        "| start | 2 k | **+50.00 ± 0.00"
    )
    assert lines[3] == "| plain | 2 k | 2.0000 | 3.0000 | 2.5000 | 0.2500 |"
    assert lines[-1] == "Real against real: 0.1250."


def test_results_of_other_numbers_are_refused(few, monkeypatch):
    check_numbers()
    check_numbers()
    monkeypatch.setattr(denoisers, "STEPS", 7)
    with pytest.raises(ValueError, match=r"kept: holds results of other numbers \(steps\); remove it"):
        check_numbers()


def test_rows_are_those_of_the_question():
    assert len(ROWS) == 19
    for name, row in ROWS.items():
        assert ("free" in name) == (row.free and row.cut is not None)
        assert ("ranks" in name) == (len(set(row.ranks)) > 1)
        assert sum(row.ranks) in (0, sum(RANKS))
    assert len({dataclasses.astuple(row) for row in ROWS.values()}) == 19
