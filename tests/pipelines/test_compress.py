"""The compress stage: a smaller checkpoint that loads, and a report whose sums are true."""

import json

import pytest

from ipt.biases.compress import compress_biases
from ipt.model import InstructIPT
from ipt.network.checkpoint import bears_half, save_model
from ipt.network.modulation import modulated_layers
from ipt.network.task_network import TaskNetwork
from ipt.understanding.instruction import InstructionModel
from ipt.weights import load_weights, save_weights
from pipelines.compress import compress


@pytest.fixture
def trained(make_config, fill_parameters, tmp_path):
    model = fill_parameters(InstructIPT(make_config(rank=4)), 0)
    network = TaskNetwork(model.config)  # what is trained can neither read nor look
    network.backbone.load_state_dict(model.backbone.state_dict())
    save_model(network, tmp_path / "trained")
    understanding(fill_parameters(InstructIPT(make_config(rank=4)), 1), tmp_path / "understanding")
    return model


def understanding(model, folder):
    folder.mkdir()
    save_weights(model.instruction, folder / "instruction.safetensors")
    save_weights(model.estimator, folder / "estimator.safetensors")


def test_the_checkpoint_written_is_the_compressed_model(trained, tmp_path):
    report = compress(tmp_path / "trained", tmp_path / "understanding", 2, tmp_path / "out")
    loaded, expected = InstructIPT.from_pretrained(tmp_path / "out"), compress_biases(trained.eval(), 2)[0]
    assert loaded.config == expected.config
    for part in ("instruction", "estimator"):  # not the trained model's
        load_weights(getattr(expected, part), tmp_path / "understanding" / f"{part}.safetensors")
    weights = expected.state_dict()
    for name, value in loaded.state_dict().items():
        stored = weights[name].half().float() if bears_half(name) else weights[name]
        assert (value == stored).all(), name
    assert report["rank"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "trained", "understanding"]


def test_so_many_readers_as_were_trained_are_kept(trained, tmp_path):
    reader = InstructionModel(len(trained.config.tasks), readers=2)
    save_weights(reader, tmp_path / "understanding" / "instruction.safetensors")
    compress(tmp_path / "trained", tmp_path / "understanding", 2, tmp_path / "out")
    kept = InstructIPT.from_pretrained(tmp_path / "out").instruction.state_dict()
    wanted = reader.state_dict()
    assert kept.keys() == wanted.keys()
    assert all((kept[name] == value.half().float()).all() for name, value in wanted.items())


def test_the_report_adds_up(trained, tmp_path):
    report = compress(tmp_path / "trained", tmp_path / "understanding", 2, tmp_path / "out")
    small = InstructIPT.from_pretrained(tmp_path / "out")
    factors = [p.numel() for name, p in small.named_parameters() if "task_" in name]
    assert report["bias_parameters"] == sum(factors)
    assert report["backbone_parameters"] == sum(p.numel() for p in small.backbone.parameters()) - sum(factors)
    assert report["bias_bytes"] == sum(layer["bytes"] for layer in report["layers"]) == 2 * sum(factors)
    assert report["bias_bytes_before"] == sum(layer["bytes_before"] for layer in report["layers"])
    assert report["file_bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert {layer["layer"] for layer in report["layers"]} == set(modulated_layers(small.backbone))
    assert json.loads(json.dumps(report))["energy_kept"] == report["energy_kept"]


def test_the_energy_kept_of_a_task_is_over_all_layers(trained, tmp_path):
    report = compress(tmp_path / "trained", tmp_path / "understanding", 1, tmp_path / "out")
    small = modulated_layers(InstructIPT.from_pretrained(tmp_path / "out").backbone)
    for number, task in enumerate(trained.config.tasks):
        lost = total = 0.0
        for name, layer in modulated_layers(trained.backbone).items():
            before = layer.task_up[number] @ layer.task_down[number]
            after = small[name].task_up[number] @ small[name].task_down[number]
            lost += (before - after).square().sum().item()
            total += before.square().sum().item()
        assert report["energy_kept"][task] == pytest.approx(1 - lost / total, abs=1e-3)


@pytest.mark.parametrize("rank", [4, 99, "auto"])
def test_a_rank_above_the_models_keeps_the_models(trained, tmp_path, rank):
    report = compress(tmp_path / "trained", tmp_path / "understanding", rank, tmp_path / "out")
    assert report["rank"] == 4
    assert report["bias_bytes"] == report["bias_bytes_before"] // 2  # half precision
    assert set(report["energy_kept"].values()) == {1.0}


@pytest.mark.parametrize("rank", [0, -1])
def test_a_bad_rank_is_refused_and_the_old_checkpoint_stays(trained, tmp_path, rank):
    compress(tmp_path / "trained", tmp_path / "understanding", 2, tmp_path / "out")
    with pytest.raises(ValueError, match=f"expected a rank from 1 to the model's 4, got {rank}"):
        compress(tmp_path / "trained", tmp_path / "understanding", rank, tmp_path / "out")
    assert InstructIPT.from_pretrained(tmp_path / "out").config.rank == 2


def test_biases_that_are_zero_keep_all_energy(make_config, tmp_path):
    model = InstructIPT(make_config())
    save_model(TaskNetwork(model.config), tmp_path / "trained")
    understanding(model, tmp_path / "understanding")
    report = compress(tmp_path / "trained", tmp_path / "understanding", 1, tmp_path / "out")
    assert set(report["energy_kept"].values()) == {1.0}
