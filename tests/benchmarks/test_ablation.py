"""The ablation's variants start alike, heed their tasks, and every row trains and is kept."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import ablation
from benchmarks.ablation import ROWS, Setting, held_out_psnr, table, train_row
from benchmarks.variants import Conditioned, Film, OneEach, Prompt
from ipt.network.backbone import Backbone
from ipt.network.modulation import modulated_layers
from pipelines.common.params import load_params
from pipelines.training.choice import Choice

TASKS = ("denoise", "derain", "deblur")


@pytest.fixture
def backbone(make_config, fill_parameters):
    return fill_parameters(Backbone(make_config()), 0)


@pytest.fixture
def params():
    real = load_params(Path(__file__).parents[2] / "params.yaml")
    return dataclasses.replace(
        real,
        tasks={name: dataclasses.replace(real.tasks[name], share=1) for name in TASKS},
        ingest=dataclasses.replace(real.ingest, crop=16),
        evaluate=dataclasses.replace(real.evaluate, tiles=2),
    )


@pytest.fixture
def given(params, shards, monkeypatch):
    monkeypatch.setattr(ablation, "SHARDS", shards)
    return Setting(params, Choice(2, ("head", "encoder.0.0.mixer.expand")), steps=4, seed=0)


@pytest.mark.parametrize("after", [Film, Prompt])
def test_a_conditioned_network_starts_as_the_backbone_and_can_heed_tasks(backbone, fill_parameters, after):
    x, index = torch.rand(3, 3, 16, 16), torch.arange(3)
    before = backbone(x)
    network = Conditioned(backbone, backbone.decoder, after, 3)
    torch.testing.assert_close(network(x, index), before)
    fill_parameters(network, 1)
    copied = copy.deepcopy(network)
    same = x[:1].expand(3, -1, -1, -1)
    outputs = network(same, index)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    torch.testing.assert_close(copied(same, index.flip(0)), outputs.flip(0))  # a copy heeds its own index
    torch.testing.assert_close(network(same, index), outputs)


def test_one_each_sends_every_image_to_its_own_network(backbone, fill_parameters):
    networks = [fill_parameters(copy.deepcopy(backbone), seed) for seed in range(3)]
    x = torch.rand(4, 3, 16, 16)
    outputs = OneEach(networks)(x, torch.tensor([2, 0, 0, 1]))
    for place, task in enumerate((2, 0, 0, 1)):
        torch.testing.assert_close(outputs[place], networks[task](x[place : place + 1])[0])


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_and_is_scored(given, row):
    network = train_row(row, given)
    scores = held_out_psnr(network, given.params)
    assert list(scores) == list(TASKS)
    assert all(3 < value < 20 for value in scores.values())
    if row not in ("shared", "film", "prompt", "single"):
        layers = modulated_layers(network)
        assert len(layers) == (len(candidates(given)) if row == "all layers" else 2)
        ranks = {"full rank": 32}.get(row, int(row.split()[1]) if row.startswith("rank") else 2)
        assert max(layer.task_up.shape[-1] for layer in layers.values()) == min(ranks, 32)


def candidates(given):
    """All layers but those that convolve each channel alone and the mixers' scales: see analyze.candidates."""
    return [
        name
        for name, module in given.backbone().named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and getattr(module, "groups", 1) == 1
        and not name.endswith(".scale")
    ]


def test_random_layers_are_other_ones_for_another_seed(given):
    names = [
        tuple(modulated_layers(train_row("random layers", dataclasses.replace(given, seed=seed)))) for seed in range(3)
    ]
    assert len(set(names)) > 1


def test_a_kept_result_is_not_measured_again_unless_what_was_asked_differs(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, "load_params", lambda: given.params)
    monkeypatch.setattr(ablation, "read_choice", lambda: given.choice)
    calls = []
    real = ablation.train_row
    monkeypatch.setattr(ablation, "train_row", lambda *what: calls.append(what) or real(*what))
    first = ablation.measure("rank 2", 0, 2)
    assert ablation.measure("rank 2", 0, 2) == json.loads(json.dumps(first))
    assert len(calls) == 1
    monkeypatch.setattr(ablation, "read_choice", lambda: Choice(1, ("head",)))
    ablation.measure("rank 2", 0, 2)
    assert len(calls) == 2


def test_the_table_gives_means_and_half_the_range():
    def result(row, seed, a, b):
        return {"row": row, "seed": seed, "psnr": {"a": a, "b": b}, "extra_parameters": 0.125}

    text = table([result("rank 2", 0, 20, 30), result("shared", 0, 10, 20), result("rank 2", 1, 21, 31)])
    lines = text.splitlines()
    assert lines[2].startswith("| shared (one network, no task input) | 12% | 10.00 | 20.00 | 15.00 | 1 | 15.00 |")
    assert lines[3].endswith("| 12% | 20.50 | 30.50 | 25.50 ± 0.50 | 2 | 25.00 |")
