"""What the documents show: each code block is run, or says what it needs and is looked at."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from documents import (
    LANGUAGES,
    ONLY_LOOKED_AT,
    ROOT,
    RUN_WITH,
    all_blocks,
    blocks_of,
    check_command,
    check_foreign_command,
    commands,
    run_shell,
)
from PIL import Image

BLOCKS = all_blocks()


def written_in(*languages):
    chosen = [block for block in BLOCKS if block.language in languages]
    assert chosen, languages
    return chosen


def test_every_block_is_of_a_language_that_is_tested_and_needs_what_is_known():
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block}: {block.language}"
        assert set(block.needs) <= {*RUN_WITH, *ONLY_LOOKED_AT}, f"{block}: {block.needs}"
    assert {name for block in BLOCKS for name in block.needs} == {*RUN_WITH, *ONLY_LOOKED_AT}  # none is left over


def test_a_need_is_of_the_block_right_below_it():
    (block,) = blocks_of("words\n\n<!-- needs: gpu, minutes -->\n```sh\nls\n```\n", "a.md")
    assert (block.needs, block.line, block.code, block.runs) == (("gpu", "minutes"), 5, "ls\n", False)
    for text in ("<!-- needs: gpu -->\nwords\n\n```sh\nls\n```\n", "<!-- need gpu -->\n", "a <!-- needs: gpu --> b\n"):
        with pytest.raises(ValueError, match="expected a block right below"):
            blocks_of(text, "a.md")


@pytest.mark.parametrize(
    "words",
    ["make no-such", "python -m pipelines.no_such", "python -m pipelines.look --no-such", "ipt restore --no-such x",
     "ipt mend", "pip install '.[no-such]'", "no-such-command"],
)  # fmt: skip
def test_what_is_not_there_is_found(words):
    (command,) = commands(words)
    with pytest.raises((AssertionError, ModuleNotFoundError)):
        check_command(command)


@pytest.mark.parametrize("block", written_in("sh"), ids=str)
def test_shell_blocks_are_shell_and_name_what_is_there(block):
    parsed = subprocess.run(["bash", "-n"], input=block.code, text=True, capture_output=True, check=False)
    assert not parsed.stderr
    for words in commands(block.code):
        check_command(words)


@pytest.mark.slow
def test_shell_blocks_name_what_dvc_mlflow_and_ray_have():
    with pytest.raises(AssertionError, match="no --no-such"):
        check_foreign_command(["ray", "start", "--no-such"])
    for block in written_in("sh"):
        for words in commands(block.code):
            check_foreign_command(words)


@pytest.mark.parametrize("block", written_in("python"), ids=str)
def test_python_blocks_are_python(block):
    ast.parse(block.code)


@pytest.mark.parametrize("block", [block for block in written_in("yaml", "json") if block.runs], ids=str)
def test_yaml_blocks_are_params_and_json_blocks_are_json(block, tmp_path):
    from degradations.recipe import check_recipe
    from pipelines.common.params import load_params
    from pipelines.common.plain_yaml import read_plain
    from pipelines.release import write_overlaid

    if block.language == "json":
        json.loads(block.code)
        return
    (tmp_path / "block.yaml").write_text(block.code)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_overlaid(tmp_path / "params.yaml", read_plain(tmp_path / "block.yaml"))
    for name, task in load_params(tmp_path / "params.yaml").tasks.items():
        check_recipe(task.recipe, name)


@pytest.mark.parametrize("block", [block for block in written_in("yaml") if not block.runs], ids=str)
def test_other_yaml_is_yaml(block, tmp_path):
    from pipelines.common.plain_yaml import read_plain

    (tmp_path / "block.yaml").write_text(block.code)
    assert read_plain(tmp_path / "block.yaml")


def photograph(side=64):
    """A picture of noise, uint8 (side, side + 16, 3)."""
    return np.random.default_rng(0).integers(0, 256, (side, side + 16, 3), np.uint8)


def exported(path):
    """An ONNX file of a task as `ipt export` describes it, that gives back what it is given."""
    from onnx import TensorProto, helper, save

    shape = ["batch", 3, "height", "width"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("degraded", "restored")]
    node = helper.make_node("Identity", ["degraded"], ["restored"])
    graph = helper.make_graph([node], "derain", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, {"reach": "8", "multiple": "4"})
    path.parent.mkdir()
    save(model, path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory of a reader: some pictures, a model, and nothing else."""
    monkeypatch.chdir(tmp_path)
    for name in ("in.jpg", "in.png", "holiday/a.jpg", "holiday/sea/b.png", "scans/c.tif"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph()).save(name)
    shutil.copytree(ROOT / "ipt/released", "models/compressed")
    return tmp_path


@pytest.fixture
def registry(place, monkeypatch):
    """The released model as champion and candidate of a store in the working directory."""
    import mlflow

    from pipelines.registry import registration

    uri = f"sqlite:///{place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(registration.__file__).with_name("pyfunc.py")),
            artifacts={"checkpoint": "models/compressed"},
            signature=registration.signature(),
            code_paths=[str(ROOT / "ipt")],
            pip_requirements=["torch"],
        )
    version = mlflow.register_model(logged.model_uri, "instruct-ipt").version
    for alias in ("champion", "candidate"):
        mlflow.MlflowClient().set_registered_model_alias("instruct-ipt", alias, version)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def page(place):
    """The port of `ipt serve`."""
    command = [Path(sys.executable).with_name("ipt"), "serve", "--port", "0", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[1]
        finally:
            process.terminate()


def small_unet():
    """What makes a network of the class in the document, whose own size, 274 million numbers, no test needs."""
    from diffusers import UNet2DModel

    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return partial(UNet2DModel, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **kinds)


def given(document):
    """What a document's python blocks take as the reader's own."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if document == "docs/method.md":
        network = nn.Sequential()
        network.add_module("encoder", nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU()))
        network.add_module("head", nn.Conv2d(8, 3, 3, padding=1))
        return {"torch": torch, "network": network, "images": torch.rand(4, 3, 16, 16)}
    if document == "docs/diffusion.md":
        return {"noisy": torch.randn(2, 3, 32, 32), "timesteps": torch.tensor([10, 900])}
    return {"photograph": photograph()}


def run_python(document, blocks, names, replace=("", "")):
    """Run the blocks of a document one after the other, as one program whose lines are the document's."""
    for block in blocks:
        code = "\n" * (block.line - 1) + block.code.replace(*replace)
        exec(compile(code, document, "exec"), names)


def documents_with(language, needs=()):
    """Blocks of that language and these needs that are run, by document."""
    found = {}
    for block in written_in(language):
        if block.needs == needs:
            found.setdefault(block.document, []).append(block)
    return found


def test_tests_that_documents_name_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/hardening.md").read_text())
    assert len(named) > 30
    assert [f"{path}::{name}" for path, name in named if f"\ndef {name}(" not in (ROOT / path).read_text()] == []


@pytest.mark.slow
@pytest.mark.parametrize("document", documents_with("python"))
def test_python_blocks_run(document, place, monkeypatch):
    import diffusers

    names = given(document)
    monkeypatch.setattr(diffusers, "UNet2DModel", small_unet())
    exported(Path("exported/derain.onnx"))
    run_python(document, documents_with("python")[document], names)


@pytest.mark.slow
@pytest.mark.parametrize("document", documents_with("sh"))
def test_shell_blocks_run(document, place):
    for block in documents_with("sh")[document]:
        run_shell(block.code, place, dict(os.environ))


@pytest.mark.slow
def test_blocks_that_ask_the_page_run(place, page):
    ours = ("127.0.0.1:8000", f"127.0.0.1:{page}")
    for document, blocks in documents_with("python", ("page",)).items():
        run_python(document, blocks, {}, ours)
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    for blocks in documents_with("sh", ("page",)).values():
        for block in blocks:
            run_shell(block.code.replace(*ours), place, dict(os.environ))


@pytest.mark.slow
def test_blocks_that_need_a_registered_model_run(registry, place):
    for document, blocks in documents_with("python", ("registry",)).items():
        run_python(document, blocks, {})
    for blocks in documents_with("sh", ("registry",)).values():
        for block in blocks:
            run_shell(block.code, place, dict(os.environ))
