"""Both rows of the comparison at length start alike, go on where they were stopped, and are kept apart by settings."""

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks import at_length
from benchmarks.at_length import ROWS, Job, before_and_after, check_state, table, train_row
from pipelines.common.params import load_params
from pipelines.training.choice import Choice

TASKS = ("denoise", "derain", "deblur")


@pytest.fixture
def params(monkeypatch):
    real = load_params(Path(__file__).parents[2] / "params.yaml")
    small = dataclasses.replace(
        real,
        tasks={name: dataclasses.replace(real.tasks[name], share=1) for name in TASKS},
        ingest=dataclasses.replace(real.ingest, crop=16),
        train=dataclasses.replace(real.train, precision="fp32", groups_per_step=1),
        evaluate=dataclasses.replace(real.evaluate, tiles=2, real_pairs=()),
    )
    monkeypatch.setattr(at_length, "load_params", lambda: small)
    monkeypatch.setattr(at_length, "read_choice", lambda: Choice(2, ("head", "stem")))
    return small


def job(shards, state, row, steps=3):
    return Job(row, shards, state, Path("nowhere"), steps, save_every=1)


def test_both_rows_start_as_the_same_network_and_only_one_heeds_the_task(params, shards, tmp_path):
    shared, biases = (job(shards, tmp_path, row).new_network(params) for row in ROWS)
    image, index = torch.rand(3, 3, 16, 16), torch.arange(3)
    assert torch.equal(shared(image, index), image)
    assert torch.equal(biases(image, index), image)
    with_biases = dict(biases.named_parameters())
    for name, parameter in shared.named_parameters():
        assert torch.equal(parameter, with_biases.pop(name))
    assert {name.rpartition(".")[2] for name in with_biases} == {"task_up", "task_down"}


@pytest.mark.parametrize("row", list(ROWS))
def test_a_row_that_was_stopped_ends_as_one_that_was_not(params, shards, tmp_path, monkeypatch, row):
    whole = train_row(job(shards, tmp_path / "whole", row))

    real = at_length.fit

    def stopped_after_one(state, batches, *, on_step):
        def stop(report):
            on_step(report)
            raise KeyboardInterrupt

        real(state, batches, on_step=stop)

    monkeypatch.setattr(at_length, "fit", stopped_after_one)
    with pytest.raises(KeyboardInterrupt):
        train_row(job(shards, tmp_path / "parts", row))
    monkeypatch.setattr(at_length, "fit", real)
    assert train_row(job(shards, tmp_path / "parts", row)) == whole


def test_a_row_that_is_done_is_measured_again_without_a_step(params, shards, tmp_path):
    given = job(shards, tmp_path, "biases")
    assert train_row(given) == train_row(given)


def test_the_scores_are_those_of_input_and_output(shards):
    from pipelines.data.pairs import load_pairs

    pairs = load_pairs(shards / "denoise" / "val", 2)
    degraded, restored = before_and_after(lambda image, index: image, 0, pairs)
    assert degraded == restored < 100


def test_the_table_says_what_the_biases_give():
    rows = [
        {"row": "biases", "parameters": 2000, "psnr": {"cbsd68": [20.0, 30.5]}},
        {"row": "shared", "parameters": 1000, "psnr": {"cbsd68": [20.0, 29.0]}},
    ]
    written = table(rows, 1_000_000)
    assert "| cbsd68 | 20.00 | 29.00 | 30.50 | +1.50 |" in written
    assert written.startswith("1,000,000 samples a row; 1 k numbers without biases, 2 k with them.")


def test_a_state_of_other_settings_is_refused(tmp_path):
    check_state(tmp_path, {"steps": 3, "layers": ("a",)})
    check_state(tmp_path, {"steps": 3, "layers": ("a",)})
    with pytest.raises(ValueError, match=r"made_of.json: .*'steps': 3.*, not with .*'steps': 4.*; name another"):
        check_state(tmp_path, {"steps": 4, "layers": ("a",)})
