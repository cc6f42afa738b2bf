"""Checkpoints: what is saved comes back, and what is damaged is named."""

import json
import re
import subprocess

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.weights import CheckpointError, load_weights, save_weights

ODD = (
    {},
    {"tasks": ("solo",), "blocks": (2,), "patch": 3, "layers": ("*",), "rank": 99},
    {"blocks": (1, 2, 1), "patch": 1, "expansion": 0.5, "head_width": 8, "layers": ("middle.*",)},
)


@pytest.fixture
def saved(make_config, randomized, tmp_path):
    model = randomized(make_config())
    save_model(model, tmp_path / "deep" / "checkpoint")
    return model, tmp_path / "deep" / "checkpoint"


@pytest.mark.parametrize("changes", ODD)
def test_a_model_comes_back_with_its_config_weights_and_output(make_config, randomized, tmp_path, changes):
    model = randomized(make_config(**changes))
    save_model(model, tmp_path)
    loaded = InstructIPT.from_pretrained(str(tmp_path))
    assert loaded.config == model.config
    assert 0 < model.config.least_weights < sum(weights.numel() for weights in model.backbone.parameters())
    assert not loaded.training
    weights = loaded.state_dict()
    assert list(weights) == list(model.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    images, index = torch.rand(2, 3, 7, 11), torch.tensor([len(model.config.tasks) - 1, 0])
    assert torch.equal(loaded(images, index), model(images, index))
    assert loaded.understand("take away the rain") == model.understand("take away the rain")


@pytest.fixture
def unsummed(saved):
    """As `saved`, without checksums: what is damaged is seen by what reads it."""
    (saved[1] / "SHA256SUMS").unlink()
    return saved


def test_the_folder_holds_nothing_but_config_safetensors_and_their_sums(saved):
    model, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "config.json", "model.safetensors"]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert json.loads((folder / "config.json").read_text()) == model.config.to_dict()


def test_saving_again_replaces_and_the_bytes_repeat(saved, make_config, randomized):
    model, folder = saved
    first = (folder / "model.safetensors").read_bytes()
    save_model(randomized(make_config(), seed=1), folder)
    assert (folder / "model.safetensors").read_bytes() != first
    save_model(model, folder)
    assert (folder / "model.safetensors").read_bytes() == first


def test_tasks_keep_their_weights_whatever_order_params_have_now(saved):
    """The order is the checkpoint's: a task is found by name."""
    model, folder = saved
    loaded = InstructIPT.from_pretrained(folder)
    image = torch.rand(1, 3, 8, 8)
    for task in reversed(model.config.tasks):
        index = torch.tensor([loaded.task_index(task)])
        assert torch.equal(loaded(image, index), model(image, torch.tensor([model.task_index(task)])))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved[1] / name).unlink()
    with pytest.raises(CheckpointError, match=f"checkpoint: expected a checkpoint folder with .*; no {name}"):
        InstructIPT.from_pretrained(saved[1])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: expected a checkpoint folder"):
        InstructIPT.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_weights_are_named(unsummed, keep):
    path = unsummed[1] / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not readable as safetensors"):
        InstructIPT.from_pretrained(unsummed[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b'{"tasks": ["a"', "Expecting"),
        (b"\xff\xfe\x00", "codec"),
        (b"[]", "missing .*width"),
        (b"3", "int"),
        (b"{}", "missing .*width"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_config_is_named(unsummed, content, message):
    (unsummed[1] / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        InstructIPT.from_pretrained(unsummed[1])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("width", 7, "multiple of head_width"),
        ("width", "8", "width: expected a number, got '8'"),
        ("width", 10**6, r"a network of at least \d+ weights; model.safetensors has room for \d+"),
        ("blocks", [10**6], r"a network of at least \d+ weights"),
        ("blocks", [1] * 3000, "int too large to convert to float"),
        ("blocks", 1, "blocks: expected a list, got int"),
        ("patch", 10**30, "patch: expected at most 10000000"),
        ("expansion", float("nan"), "expansion: expected at most 10000000, got nan"),
        ("expansion", True, "expansion: expected a number, got 'True'"),
        ("tasks", "derain", "tasks: expected a list, got str"),
        ("tasks", [], "tasks: expected one or more"),
        ("layers", ["nothing"], "no Linear or Conv2d layer matches 'nothing'"),
        ("depth", 3, r"unknown \['depth'\]"),
    ],
)
def test_a_config_that_cannot_be_built_is_named(unsummed, key, value, message):
    path = unsummed[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        InstructIPT.from_pretrained(unsummed[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["denoise", "derain"]}, r"task_up: expected shape \(2, .*got \(3, "),
        ({"rank": 1}, r"expected shape \(3, 24, 1\), got \(3, 24, 2\)"),
        ({"blocks": [1, 2]}, "missing backbone.middle.1"),
        ({"layers": ["*.project"]}, "unexpected backbone.*task_"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_named(unsummed, changes, message):
    path = unsummed[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(
        CheckpointError,
        match=rf"model\.safetensors: weights do not fit the config: .*{message}.* and \d+ more$",
    ):
        InstructIPT.from_pretrained(unsummed[1])


def test_weights_of_any_module_come_back_and_a_failed_load_changes_nothing(tmp_path):
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    save_weights(module, tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(other.bias, module.bias)
    wrong = nn.Linear(4, 3)
    before = wrong.bias.detach().clone()
    with pytest.raises(CheckpointError, match=r"config: weight: expected shape \(3, 4\), got \(3, 2\)$"):
        load_weights(wrong, tmp_path / "weights.safetensors")
    assert torch.equal(wrong.bias, before)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn])
def test_weights_that_are_no_numbers_of_a_network_are_named(tmp_path, dtype):
    module = nn.Linear(2, 3)
    save_file(
        {name: torch.full_like(value, 1).to(dtype) for name, value in module.state_dict().items()}, tmp_path / "a"
    )
    if dtype.is_floating_point:
        load_weights(module, tmp_path / "a")
        assert module.weight.eq(1).all()
        save_file({"weight": torch.full((3, 2), torch.nan).to(dtype), "bias": torch.ones(3)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"no finite numbers: .*weight"):
        load_weights(module, tmp_path / "a")


def test_half_precision_takes_half_the_bytes_and_come_back_rounded(make_config, randomized, tmp_path):
    model = randomized(make_config())
    save_model(model, tmp_path / "full")
    save_model(model, tmp_path / "half", half=True)
    loaded = InstructIPT.from_pretrained(tmp_path / "half").state_dict()
    for name, value in model.state_dict().items():
        expected = value.half().float() if name.startswith(("backbone.", "instruction.")) else value
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], expected), name
    halved = sum(value.numel() for name, value in loaded.items() if name.startswith(("backbone.", "instruction.")))
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert full - half == pytest.approx(2 * halved, rel=0.05)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_the_one_that_was_saved_is_refused(saved, name):
    path = saved[1] / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)}: its SHA-256 is .*damaged or changed"):
        InstructIPT.from_pretrained(saved[1])


def test_checksums_name_the_two_files_and_nothing_else(saved, tmp_path):
    (tmp_path / "secret").write_text("x")
    sums = saved[1] / "SHA256SUMS"
    for line in ("0" * 64 + "  ../../secret", "0" * 64 + " config.json", "\0"):
        sums.write_text(line)
        with pytest.raises(CheckpointError, match="SHA256SUMS: expected lines"):
            InstructIPT.from_pretrained(saved[1])
