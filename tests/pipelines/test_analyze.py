"""The analyze stage on small shards: its choice, its files, and that pinned params are taken as they are."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipelines import analyze as stage
from pipelines.analyze import Samples, analyze, main
from pipelines.common.params import Modulation, load_params
from pipelines.data.metrics import psnr
from pipelines.data.pairs import load_pairs, spread_rows
from pipelines.training.batches import group_batches
from pipelines.training.choice import read_choice
from pipelines.training.groups import open_mix
from pipelines.training.psnr_meter import psnr_meter

REAL = Path(__file__).parents[2] / "params.yaml"
TASKS = ("denoise", "derain", "deblur")


@pytest.fixture(scope="module")
def params():
    """The real ones with the tasks of the small shards, images of 16 pixels and a few steps."""
    real = load_params(REAL)
    return dataclasses.replace(
        real,
        tasks={name: dataclasses.replace(real.tasks[name], share=1) for name in TASKS},
        ingest=dataclasses.replace(real.ingest, crop=16),
        analyze=dataclasses.replace(real.analyze, common_steps=4, bias_steps=6, tiles=2),
        train=dataclasses.replace(real.train, groups_per_step=2),
    )


@pytest.fixture(scope="module")
def result(params, shards):
    return analyze(params, Samples.of(params, shards))


def test_layers_and_rank_are_chosen_among_the_candidates(params, result):
    choice, scores, energy, summary = result
    assert 1 <= len(choice.layers) <= len(scores) == summary["candidates"]
    assert set(choice.layers) <= set(scores)
    assert not any(name.endswith(".local") for name in scores)
    assert choice.rank == summary["rank"] >= 1
    assert energy.shape[0] == len(TASKS)
    assert 0 < summary["bias_share"] <= params.analyze.bias_share or choice.rank == 1


def test_the_rank_keeps_the_energy_where_the_biases_may_be_large(params, shards):
    free = dataclasses.replace(params.analyze, bias_share=100.0)
    choice, _, energy, _ = analyze(dataclasses.replace(params, analyze=free), Samples.of(params, shards))
    assert float(energy[:, choice.rank].min()) >= params.analyze.energy - 1e-6
    assert float(energy[:, choice.rank - 1].min()) < params.analyze.energy or choice.rank == 1


def test_pinned_layers_are_kept_and_their_rank_found(params, shards):
    pinned = dataclasses.replace(params, modulation=Modulation("auto", ("head", "decoder.0.*.project")))
    choice, scores, _, _ = analyze(pinned, Samples.of(params, shards))
    assert choice.layers == tuple(scores)
    assert set(choice.layers) == {"head", "decoder.0.0.mixer.project", "decoder.0.0.feed_forward.project"}


def test_a_pinned_rank_is_kept(params, shards):
    pinned = dataclasses.replace(params, modulation=Modulation(3, "auto"))
    choice, scores, _, summary = analyze(pinned, Samples.of(params, shards))
    assert choice.rank == 3
    assert len(scores) > len(choice.layers)
    assert summary["rank"] == 3


@pytest.fixture
def in_folder(tmp_path, monkeypatch, shards):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "SHARDS", shards)
    return tmp_path


def test_the_stage_writes_choice_summary_and_plots(params, in_folder, monkeypatch):
    monkeypatch.setattr(stage, "load_params", lambda: params)
    main()
    choice = read_choice(in_folder / "metrics/modulation.json")
    summary = json.loads((in_folder / "metrics/analyze.json").read_text())
    assert summary["layers"] == len(choice.layers)
    table = pd.read_csv(in_folder / "plots/sensitivity.csv")
    assert list(table.columns) == ["layer", "task", "psnr_gain"]
    assert len(table) == len(TASKS) * summary["candidates"]
    spectrum = pd.read_csv(in_folder / "plots/spectrum.csv")
    assert set(spectrum.task) == set(TASKS)
    assert spectrum.groupby("task").energy.max().min() == pytest.approx(1)
    picture = cv2.imread(str(in_folder / "plots/sensitivity.png"))
    assert picture.shape[0] > 400
    assert np.unique(picture.reshape(-1, 3), axis=0).shape[0] > 50  # colours, not an empty frame


def test_with_both_pinned_nothing_is_measured(params, in_folder, monkeypatch, capsys):
    pinned = dataclasses.replace(params, modulation=Modulation(5, ("head",)))
    monkeypatch.setattr(stage, "load_params", lambda: pinned)
    monkeypatch.setattr(stage, "analyze", lambda *given: pytest.fail("it was measured"))
    main()
    assert "skipped" in capsys.readouterr().out
    assert read_choice(in_folder / "metrics/modulation.json") == stage.Choice(5, ("head",))
    assert len(pd.read_csv(in_folder / "plots/sensitivity.csv")) == 0
    assert (in_folder / "plots/sensitivity.png").is_file()


def test_batches_are_the_streams_groups_from_a_step_on(params, shards):
    mix = open_mix(shards, params.tasks, "train", 0)
    whole = list(group_batches(params, mix, 2, 0, 20))
    assert len(whole) == 20
    rest = list(group_batches(params, mix, 2, 17, 3))
    for one, other in zip(whole[17:], rest, strict=True):
        assert torch.equal(one.degraded, other.degraded)
        assert one.index.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_meter_gives_each_tasks_mean_psnr(shards):
    rows = [spread_rows(shards / task / "train", 2) for task in TASKS]
    measure = psnr_meter(rows, torch.device("cpu"), bf16=False)
    for task, value in zip(TASKS, measure(torch.nn.Identity()), strict=True):
        pairs = load_pairs(shards / task / "train", 2)
        assert value == pytest.approx(np.mean([psnr(degraded, clean) for degraded, clean in pairs]), abs=0.05)
