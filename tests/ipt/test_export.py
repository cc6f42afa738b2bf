"""ONNX files do what torch does, at sizes that were never traced; and what the command says where they cannot."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from ipt import export
from ipt.cli import app
from ipt.export import export_tasks, measure
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.network.modulation import merge

TASKS = ("denoise", "derain")  # of the three that the model has
STATIC = (13, 10)  # height, width; no multiples of 4, to which the network pads


@pytest.fixture(scope="module")
def model(make_config, fill_parameters):
    """A model in whose output most values are not clipped, and in which each task does something else."""
    network = fill_parameters(InstructIPT(make_config()), 0).eval()
    with torch.no_grad():
        network.backbone.head.weight.mul_(0.1)
        network.backbone.head.bias.mul_(0.1)
    return network


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The tasks of TASKS in a folder, and derain for one size in the folder `static` in it."""
    folder = tmp_path_factory.mktemp("exported")
    done = list(export_tasks(model, folder, TASKS, name="models/mine"))
    assert [(each.task, each.path) for each in done] == [(task, folder / f"{task}.onnx") for task in TASKS]
    assert all(each.difference < 1e-4 for each in done)
    list(export_tasks(model, folder / "static", ["derain"], size=STATIC))
    return folder


@pytest.fixture
def ipt(model, tmp_path, monkeypatch):
    """Run `ipt export` in a folder of its own with the model in `model`; returns what it wrote and its exit status."""
    monkeypatch.chdir(tmp_path)
    save_model(model, Path("model"))

    def run(*arguments):
        result = CliRunner().invoke(app, ["export", "--model", "model", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return run


def run_onnx(path, degraded):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["restored"], {"degraded": degraded.numpy()})[0])


def by_torch(model, degraded, task):
    index = torch.full((len(degraded),), model.config.tasks.index(task))
    with torch.inference_mode():
        return model(degraded, index).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (3, 4, 8), (2, 37, 53), (1, 64, 131)])
def test_a_file_restores_what_torch_restores_at_any_size(model, folder, task, shape):
    degraded = torch.rand(shape[0], 3, *shape[1:])
    restored, expected = run_onnx(folder / f"{task}.onnx", degraded), by_torch(model, degraded, task)
    assert restored.shape == expected.shape
    assert (restored - expected).abs().max() < 1e-5
    assert (expected - degraded).abs().mean() > 0.02  # it does something,
    assert (expected == expected.clamp(0.001, 0.999)).float().mean() > 0.3  # and clipping does not hide what


@pytest.mark.slow
def test_a_static_file_takes_one_picture_of_its_size_and_no_other(model, folder):
    path = folder / "static" / "derain.onnx"
    degraded = torch.rand(1, 3, *STATIC)
    assert (run_onnx(path, degraded) - by_torch(model, degraded, "derain")).abs().max() < 1e-5
    for other in ((1, 3, 13, 11), (1, 3, 16, 12), (2, 3, *STATIC)):
        with pytest.raises(Exception, match="invalid dimensions"):
            run_onnx(path, torch.rand(other))


@pytest.mark.slow
def test_a_file_says_what_it_is_and_not_where_it_was_made(model, folder):
    path = folder / "derain.onnx"
    file = onnx.load(path)
    about = {each.key: each.value for each in file.metadata_props}
    assert about["model"] == "models/mine"
    assert (about["task"], about["opset"], about["model_license"]) == ("derain", "18", "of the model card")
    assert (about["reach"], about["multiple"]) == (str(model.backbone.reach), "4")
    assert "0 to 1" in about["input"]
    assert [(each.domain, each.version) for each in file.opset_import] == [("", 18)]
    assert file.ir_version == 8
    for value, name in ((file.graph.input, "degraded"), (file.graph.output, "restored")):
        assert [each.name for each in value] == [name]
        shape = [each.dim_param or each.dim_value for each in value[0].type.tensor_type.shape.dim]
        assert shape == ["batch", 3, "height", "width"]
    for trace in (str(Path(export.__file__).parent), ".py", "torch"):
        assert trace.encode() not in path.read_bytes()
    assert not any("Sequence" in node.op_type for node in file.graph.node)  # which few runtimes know


@pytest.mark.slow
def test_a_file_of_other_weights_is_found_out(model, folder):
    others = merge(model.backbone, model.task_index("deblur"))
    assert measure(folder / "derain.onnx", others, [(1, 9, 9)]) > export.TOLERANCE


@pytest.fixture
def no_trace(monkeypatch):
    """Nothing is traced: files are empty, and differ by what `differs` is set to."""
    state = {"differs": 0.0}
    monkeypatch.setattr(export, "trace", lambda network, size: onnx.ModelProto(ir_version=8))
    monkeypatch.setattr(export, "_finished", lambda graph, network, task, name: graph)
    monkeypatch.setattr(export, "measure", lambda path, network, tried: state["differs"])
    return state


def test_all_tasks_where_none_is_named_and_what_is_there_stays(ipt, no_trace):
    Path("out").mkdir()
    Path("out/derain.onnx").write_text("mine")
    first = ipt("-o", "out")
    assert (first.exit_code, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert (
        lines[0] == "out/denoise.onnx: 0 kB, opset 18, at most 0.0e+00 from torch (tried 1 of 130 x 75, 2 of 61 x 131)"
    )
    assert lines[1] == "out/derain.onnx: skipped, is there already (--overwrite replaces it)"
    assert lines[2].startswith("out/deblur.onnx: ")
    assert Path("out/derain.onnx").read_text() == "mine"
    second = ipt("-o", "out", "--task", "derain", "--overwrite", "--size", "20x10")
    assert second.stdout.splitlines() == [
        "out/derain.onnx: 0 kB, opset 18, at most 0.0e+00 from torch (tried 1 of 20 x 10)"
    ]
    assert Path("out/derain.onnx").read_text() != "mine"


def test_what_a_full_disk_or_a_crash_left_empty_is_made_again(ipt, no_trace):
    Path("out").mkdir()
    Path("out/derain.onnx").touch()
    assert ipt("-o", "out", "--task", "derain").stdout.startswith("out/derain.onnx: 0 kB, opset 18, ")
    assert Path("out/derain.onnx").stat().st_size > 0


@pytest.mark.parametrize("differs", [0.0011, np.nan])
def test_a_file_that_differs_is_not_kept_and_the_one_before_it_is(ipt, no_trace, differs):
    Path("out").mkdir()
    Path("out/derain.onnx").write_text("mine")
    no_trace["differs"] = differs
    done = ipt("-o", "out", "--overwrite", "--task", "derain", "--task", "deblur")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"ipt: out/derain.onnx: not written, differs from torch by {differs:.2g} ")
    assert [path.name for path in Path("out").iterdir()] == ["derain.onnx"]
    assert Path("out/derain.onnx").read_text() == "mine"


@pytest.mark.parametrize("size", ["0", "0x5", "5x", "x", "-8", "512x512x3", "4097", "9999999", "big", "٣"])
def test_a_size_that_is_none_is_refused(ipt, size):
    done = ipt("-o", "out", "--size", size)
    assert done.exit_code == 2
    assert done.stderr.startswith("ipt: size: expected dynamic, a side (512) or WIDTHxHEIGHT (640x480) of 1 to 4096 ")
    assert done.stderr.count("\n") == 1


def test_what_cannot_be_done_is_told_in_a_line_before_anything_is_made(ipt, monkeypatch):
    Path("file").write_text("")
    for arguments, told in (
        (["-o", "out", "--task", "derian"], "task: unknown task 'derian'; did you mean 'derain'?"),
        (
            ["-o", "out", "--model", "nowhere"],
            "--model nowhere: no such folder; leave --model out for the model",
        ),
        (["-o", "file/out"], "file/out: "),
    ):
        done = ipt(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"ipt: {told}")
        assert done.stderr.count("\n") == 1
    monkeypatch.setattr(export.os, "access", lambda path, mode: False)  # root may write anywhere
    assert ipt("-o", "out").stderr.startswith("ipt: out: no permission to write into ")
    assert not Path("out").exists()


def test_a_missing_extra_is_told_with_the_command_that_installs_it(ipt, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else object())
    done = ipt("-o", "out")
    assert done.exit_code == 2
    assert done.stderr == (
        "ipt: export: onnxruntime not installed; pip install 'instruct-ipt[export]', or in a checkout "
        "pip install -c constraints.txt -e '.[export]'\n"
    )


def test_a_task_whose_name_leaves_the_folder_is_refused(make_config, tmp_path):
    model = InstructIPT(make_config(tasks=("../derain", "deblur")))
    with pytest.raises(ValueError, match=r"'\.\./derain' is no name for a file"):
        list(export_tasks(model, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_onnx_runtime_does_not_run_is_told(model, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(RuntimeError, match="does not run the file"):
        measure(tmp_path / "a.onnx", merge(model.backbone, 0), [(1, 4, 4)])
