"""A folder restored through Ray: the same files and words as `ipt restore`, and a second call does what is missing."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import pipelines  # noqa: F401  sets Ray's environment
from ipt.cli import app
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.photos.file_processes import FileProcesses
from ipt.photos.photo import read_photo
from ipt.restoring.budget import FILES, NETWORK, PROCESS, MemoryBudget
from ipt.restoring.photographs import Report, Request
from ipt.restoring.restore import restore_image
from pipelines import restore
from pipelines.common.stage import run
from pipelines.restore import Restorer, main


@pytest.fixture
def model(make_config, fill_parameters, tmp_path, monkeypatch):
    """A model that sees noise everywhere, saved in the folder `model` of the working directory."""
    monkeypatch.chdir(tmp_path)
    model = fill_parameters(InstructIPT(make_config()), seed=0).eval()
    with torch.no_grad():
        model.estimator.score.weight.zero_()
        model.estimator.score.bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    save_model(model, Path("model"))
    return model


@pytest.fixture
def call(model, monkeypatch, capsys):
    """Call `main` as the command line does; returns the exit status and what was said."""

    def with_arguments(*arguments):
        given = ["--precision", "fp32", *([] if "--model" in arguments else ["--model", "model"])]
        monkeypatch.setattr("sys.argv", ["pipelines.restore", *arguments, *given])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(main)
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return with_arguments


def photograph(path, seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 28, 3), np.uint8)).save(path)
    return path


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}


def batch_of(names):
    """Files of the working directory, and where they go in the folder `out`."""
    return pa.table(
        {
            "source": [os.fsencode(path.absolute()) for path in names],
            "target": [os.fsencode((Path("out") / path).absolute()) for path in names],
        }
    )


def test_a_batch_of_paths_becomes_reports(model):
    photograph("a.png")
    Path("b.png").touch()
    odd = photograph("c.png").rename(os.fsdecode(b"caf\xe9.png"))
    names = [Path("a.png"), Path("b.png"), odd]
    batch = batch_of(names)
    done = Restorer(model, Request(task="derain"), gpu=False, together=1)(batch)
    reports = [Report.from_json(line) for line in done["report"].to_pylist()]
    assert [report.status for report in reports] == ["restored", "failed", "restored"]
    assert sorted(os.listdir(b"out")) == [b"a.png", b"caf\xe9.png"]
    expected = restore_image(model, read_photo("a.png").levels, task="derain")
    assert np.array_equal(read_photo("out/a.png").levels, expected)


def test_all_on_a_machine_restore_within_the_one_budget(model, monkeypatch):
    monkeypatch.setattr(MemoryBudget, "of_what_is_free", lambda: MemoryBudget(4_000_000_000))
    asked = []
    monkeypatch.setattr(
        "ipt.restoring.restore.affordable_tile", lambda *arguments: asked.append(arguments[-1]) or 10_000
    )
    restorer = Restorer(model, Request(task="derain"), gpu=False, together=4)
    restorer(batch_of([photograph("a.png")]))
    assert 4 * asked[0] == 4_000_000_000 * NETWORK
    assert 4 * (restorer.files._limits.memory + PROCESS) == 4_000_000_000 * FILES


def test_as_many_share_the_memory_as_one_machine_has(monkeypatch):
    machines = [(True, {"CPU": 2.0}), (True, {"CPU": 8.0, "GPU": 4.0}), (False, {"CPU": 64.0})]
    nodes = [{"Alive": alive, "Resources": resources} for alive, resources in machines]
    monkeypatch.setattr(restore.ray, "nodes", lambda: nodes)
    assert [restore._most_on_a_machine(name) for name in ("CPU", "GPU", "TPU")] == [8, 4, 1]


def test_a_file_that_kills_its_reader_fails_alone(model, monkeypatch):
    monkeypatch.setattr(FileProcesses.__init__, "__defaults__", (1, None, "hostile_file_process"))
    photograph("a.png")
    Path("crash.png").write_bytes(b"crash")
    done = Restorer(model, Request(), gpu=False, together=1)(batch_of([Path("crash.png"), Path("a.png")]))
    bad, good = [Report.from_json(line) for line in done["report"].to_pylist()]
    assert (bad.status, good.status) == ("failed", "restored")
    assert "its decoder crashed" in bad.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "derian"], "task: unknown task 'derian'; did you mean 'derain'?"),
        (["--strength", "9"], "strength: expected 0.0 to 1.5, got 9.0"),
        (["--tile", "5"], "tile: expected at least 84 pixels"),
        (["--model", "in"], "in: expected a checkpoint folder with config.json and model.safetensors; no config.json"),
    ],
)
def test_wrong_use_is_told_before_ray_starts(call, monkeypatch, arguments, message):
    monkeypatch.setattr(restore, "connected", None)
    photograph("in/a.png")
    status, out, err = call("--input", "in", "--output", "out", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_an_interruption_says_that_the_same_command_does_the_rest(call, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(restore, "connected", contextlib.nullcontext)
    monkeypatch.setattr(restore, "restore_everywhere", interrupted)
    photograph("in/a.png")
    assert call("--input", "in", "--output", "out") == (
        130,
        "",
        "ipt: stopped; whole files only were written, the same command does the rest\n",
    )


@pytest.mark.slow
def test_a_folder_becomes_what_the_command_ipt_makes_of_it_and_the_rest_is_done_later(call, local_ray):
    for number, name in enumerate(("in/a.png", "in/b.jpg", "in/sub/c.webp", "in/sub/deep/d.tif")):
        photograph(name, number)
    photograph("e.png", 5).rename(os.fsdecode(b"in/caf\xe9.png"))
    Path("in/link.png").symlink_to(photograph("elsewhere.png", 6).rename("elsewhere.bin").absolute())
    Path("in/empty.png").touch()
    Path("in/page.jpg").write_text("<html>")
    Path("in/notes.txt").write_text("mine")
    arguments = ["--input", "in", "--output", "out"]
    status, out, err = call(*arguments)
    assert status == 1
    assert len(out.splitlines()) == 6
    assert out.count(": denoise (the picture needs it, ") == 6
    left_out, *told = err.splitlines()
    assert left_out == "ipt: left out: 1 .txt (files of other kinds)"
    assert told[0].endswith("in/empty.png: failed: cannot be read as an image: the file is empty")
    assert "in/page.jpg: failed: cannot be read as an image: not one of JPEG" in told[1]
    assert told[2:] == ["ipt: 2 files could not be restored"]
    done = tree("out")
    assert len(done) == 6
    assert CliRunner().invoke(app, ["restore", "in", "-o", "alone", "--model", "model"]).exit_code == 1
    assert tree("alone") == done

    Path("out/sub/c.webp").unlink()
    for bad in ("in/empty.png", "in/page.jpg"):
        Path(bad).unlink()
    status, out, err = call(*arguments, "--json", "--compare")
    reports = [Report.from_json(line) for line in out.splitlines()]
    assert (status, err) == (0, "ipt: left out: 1 .txt (files of other kinds)\n")
    assert [Path(report.file).name for report in reports if report.status == "restored"] == ["c.webp"]
    assert [report.status for report in reports].count("skipped") == 5
    assert json.loads(out.splitlines()[0])["file"].endswith("in/a.png")
    after = tree("out")
    assert after.pop("sub/c.webp.compare.jpg")
    assert after == done
