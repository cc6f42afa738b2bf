"""The command as a person meets it: what it writes, what it says, and how it ends."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, EntryPoints, version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ipt import pretrained
from ipt.cli import app
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.photos.file_processes import FileProcesses
from ipt.photos.photo import read_photo
from ipt.reports import describe
from ipt.restoring import photographs
from ipt.restoring.photographs import Report
from ipt.restoring.restore import restore_image
from ipt.understanding.instruction import InstructionModel


@pytest.fixture
def model(make_config, randomized, tmp_path, monkeypatch):
    """A model in the folder `model` of the working directory: it sees noise everywhere and understands nothing."""
    monkeypatch.chdir(tmp_path)
    return saved_model(randomized(make_config()), "denoise")


@pytest.fixture
def ipt(model):
    """Run the command with the model; returns what it wrote and its exit status."""

    def run(*arguments, input=None):
        command, *rest = map(str, arguments)
        given = [] if "--model" in rest else ["--model", "model"]
        result = CliRunner().invoke(app, [command, *rest, *given], input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return run


@pytest.fixture
def asks(monkeypatch):
    """Have every instruction understood as asking for some tasks."""

    def make(*tasks):
        def read(self, instruction):
            return tasks, {task: float(task in tasks) for task in self.config.tasks}

        monkeypatch.setattr(InstructIPT, "read", read)

    return make


def saved_model(model, seen):
    """Save a model that is sure of one damage in every picture, None: of none, and that no sentence asks anything."""
    model.instruction = InstructionModel(len(model.config.tasks))
    with torch.no_grad():
        model.estimator.score.weight.zero_()
        model.estimator.score.bias.zero_()
        if seen:
            model.estimator.score.bias[(*model.config.tasks, "clean").index(seen)] = 10
    save_model(model, Path("model"))
    return model


def photograph(path, height=20, width=28, seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_a_folder_is_restored_to_the_same_tree_and_a_second_call_has_nothing_to_do(ipt, model):
    for name in ("in/a.png", "in/sub/b.jpg", "in/sub/deep/c.webp"):
        photograph(name)
    Path("in/notes.txt").write_text("mine")
    first = ipt("restore", "in", "-o", "out")
    assert (first.exit_code, first.stderr) == (0, "ipt: left out: 1 .txt (files of other kinds)\n")
    assert first.stdout.splitlines()[0].startswith("in/a.png: denoise (the picture needs it, 100% sure), 28 x 20, ")
    assert first.stdout.splitlines()[0].endswith(" s -> out/a.png")
    assert tree("out") == ["a.png", "sub/b.jpg", "sub/deep/c.webp"]
    assert tree("in") == ["a.png", "notes.txt", "sub/b.jpg", "sub/deep/c.webp"]
    restored = read_photo("out/a.png").levels
    assert np.array_equal(restored, restore_image(model, read_photo("in/a.png").levels, task="denoise"))
    before = {name: Path("out", name).read_bytes() for name in tree("out")}
    Path("out/sub/b.jpg").unlink()
    second = ipt("restore", "in", "-o", "out")
    lines = second.stdout.splitlines()
    assert second.exit_code == 0
    assert lines[0] == "in/a.png: skipped, out/a.png is there already (--overwrite replaces it)"
    assert lines[1].startswith("in/sub/b.jpg: denoise (")
    assert "skipped" in lines[2]
    assert {name: Path("out", name).read_bytes() for name in tree("out")} == before


def test_the_output_may_lie_in_the_input(ipt):
    photograph("in/a.png"), photograph("in/b.png")
    for _ in range(2):
        assert ipt("restore", "in", "-o", "in/done").exit_code == 0
        assert tree("in") == ["a.png", "b.png", "done/a.png", "done/b.png"]


def test_files_and_patterns_go_into_one_folder(ipt):
    photograph("in/a.png"), photograph("in/b.png"), photograph("in/c.jpg"), photograph("other/d.bmp")
    assert ipt("restore", "in/*.png", "other/d.bmp", "-o", "out").exit_code == 0
    assert tree("out") == ["a.png", "b.png", "d.bmp"]


def test_bad_files_are_told_and_the_others_are_restored(ipt):
    photograph("in/a.jpg"), photograph("in/z.png")
    Path("in/empty.png").touch()
    Path("in/page.jpg").write_text("<html>")
    Path("in/half.jpg").write_bytes(Path("in/a.jpg").read_bytes()[:700])
    result = ipt("restore", "in", "-o", "out")
    assert result.exit_code == 1
    assert tree("out") == ["a.jpg", "z.png"]
    told = result.stderr.splitlines()
    assert told[0] == "in/empty.png: failed: cannot be read as an image: the file is empty"
    assert told[1].startswith("in/half.jpg: failed: cannot be read as an image: ")
    assert told[2].startswith("in/page.jpg: failed: cannot be read as an image: not one of JPEG, PNG, WEBP, TIFF, BMP")
    assert told[3:] == ["ipt: 3 files could not be restored"]
    assert len(result.stdout.splitlines()) == 2


def test_a_file_that_kills_its_reader_is_told_and_the_others_are_restored(ipt, monkeypatch):
    monkeypatch.setattr(FileProcesses.__init__, "__defaults__", (1, None, "hostile_file_process"))
    photograph("in/b.png")
    Path("in/a.png").write_bytes(b"crash")
    result = ipt("restore", "in", "-o", "out")
    assert (result.exit_code, tree("out")) == (1, ["b.png"])
    assert result.stderr.startswith("in/a.png: failed: its decoder crashed")


def test_a_full_disk_fails_the_files_one_by_one_and_leaves_no_halves(ipt, monkeypatch):
    def half(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    photograph("in/a.png"), photograph("in/b.png")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        result = ipt("restore", "in", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "in/a.png: failed: cannot write out/a.png: No space left on device"
    assert result.stderr.splitlines()[2:] == ["ipt: 2 files could not be restored"]
    assert list(Path("out").rglob("*")) == []
    assert ipt("restore", "in", "-o", "out").exit_code == 0


def test_a_name_that_is_too_long_in_another_format_or_with_a_comparison_costs_its_own_file(ipt):
    photograph("a.jpg").rename("a" * 251 + ".jpg"), photograph("b.jpg")
    result = ipt("restore", "*.jpg", "-o", "out", "--format", "webp")
    assert (result.exit_code, tree("out")) == (1, ["b.webp"])
    assert ": failed: cannot write out/aaa" in result.stderr
    assert ".webp: File name too long; give aaa" in result.stderr
    assert result.stderr.splitlines()[1:] == ["ipt: 1 file could not be restored"]
    result = ipt("restore", "*.jpg", "-o", "two", "--compare")
    assert (result.exit_code, tree("two")) == (1, ["b.jpg", "b.jpg.compare.jpg"])
    assert "or leave --compare out" in result.stderr
    assert ipt("restore", "*.jpg", "-o", "two").exit_code == 0  # a name of 255 bytes can be written


def test_json_has_a_line_for_each_file(ipt):
    photograph("in/a.png")
    Path("in/b.png").touch()
    result = ipt("restore", "in", "-o", "out", "--json")
    restored, failed = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 1
    assert restored["probabilities"].keys() == {"denoise", "derain", "deblur", "clean"}
    del restored["seconds"], restored["probabilities"]
    assert restored == {
        "file": "in/a.png", "output": "out/a.png", "status": "restored", "tasks": ["denoise"], "by": "blind",
        "understood": None, "width": 28, "height": 20, "error": None,
    }  # fmt: skip
    assert (failed["status"], failed["error"]) == ("failed", "cannot be read as an image: the file is empty")
    assert result.stderr == "ipt: 1 file could not be restored\n"
    again = ipt("restore", "in/a.png", "-o", "out", "--json")
    assert json.loads(again.stdout)["status"] == "skipped"


def test_a_task_is_done_as_asked_with_its_strength(ipt, model):
    photograph("a.png")
    result = ipt("restore", "a.png", "-o", "b.png", "--task", "deblur", "--strength", "0.5", "--tile", "90")
    assert result.exit_code == 0
    assert result.stdout.startswith("a.png: deblur (as asked), 28 x 20, ")
    expected = restore_image(model, read_photo("a.png").levels, task="deblur", strength=0.5)
    assert np.array_equal(read_photo("b.png").levels, expected)


def test_an_instruction_is_followed_and_an_unclear_one_leaves_it_to_the_picture(ipt, model, asks):
    photograph("a.png")
    unclear = ipt("restore", "a.png", "-o", "b.png", "-i", "make it nice")
    assert "denoise (instruction not understood; the picture needs it, 100% sure)" in unclear.stdout
    script = ipt("restore", "a.png", "-o", "c.png", "-i", "убери дождь 去雨 🌧")
    assert (script.exit_code, read_photo("c.png").format) == (0, "PNG")
    assert "instruction not understood" in script.stdout
    asks("derain")
    clear = ipt("restore", "a.png", "-o", "d.png", "--instruction", "take away the rain")
    assert "a.png: derain (understood: derain), " in clear.stdout
    expected = restore_image(model, read_photo("a.png").levels, task="derain")
    assert np.array_equal(read_photo("d.png").levels, expected)


@pytest.mark.parametrize(
    ("seen", "words"), [("clean", "the picture looks clean, 100% sure"), (None, "not sure what the picture needs; ")]
)
def test_a_picture_without_clear_damage_is_copied_and_that_is_said(ipt, model, seen, words):
    saved_model(model, seen)
    source = photograph("a.jpg")
    result = ipt("restore", "a.jpg", "-o", "out")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"a.jpg: left as it is ({words}")
    assert Path("out/a.jpg").read_bytes() == source.read_bytes()


def test_another_suffix_converts_and_what_cannot_be_held_is_refused(ipt):
    photograph("a.jpg")
    assert ipt("restore", "a.jpg", "-o", "b.png").exit_code == 0
    assert read_photo("b.png").format == "PNG"
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (9, 9), np.uint16)).save("wide.png")
    result = ipt("restore", "wide.png", "-o", "wide.jpg")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == (
        "wide.png: failed: .jpg cannot hold its 16 bits per channel; name a .png or .tif file"
    )
    assert not Path("wide.jpg").exists()


def test_the_input_is_replaced_only_with_overwrite(ipt):
    before = photograph("in/a.png").read_bytes()
    result = ipt("restore", "in", "-o", "in")
    assert result.exit_code == 1
    assert result.stderr.startswith("in/a.png: failed: the restored version would replace it; ")
    assert Path("in/a.png").read_bytes() == before
    assert ipt("restore", "in", "-o", "in", "--overwrite", "--compare").exit_code == 0
    assert Path("in/a.png").read_bytes() != before
    assert tree("in") == ["a.png", "a.png.compare.jpg"]
    assert len(ipt("restore", "in", "-o", "in", "--overwrite").stdout.splitlines()) == 1


NOWHERE = "--model nowhere: no such folder; leave --model out for the model that comes with ipt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in", "-o", "out", "--task", "derian"], "task: unknown task 'derian'; did you mean 'derain'?"),
        (["in", "-o", "out", "--task", "x"], "task: unknown task 'x'; this model knows denoise, derain, deblur"),
        (["in", "-o", "out", "--task", "derain", "-i", "rain"], "restore: expected a task or an instruction, got both"),
        (
            ["in", "-o", "out", "-i", "rain\n" * 2000],
            "instruction: expected at most 2000 characters, got 10000",
        ),
        (["in", "-o", "out", "--strength", "9"], "strength: expected 0.0 to 1.5, got 9.0"),
        (["in", "-o", "out", "--strength", "nan"], "strength: expected 0.0 to 1.5, got nan"),
        (["in", "-o", "out", "--tile", "nonsense"], "--tile: expected auto or a number of pixels, got 'nonsense'"),
        (["in", "-o", "out", "--tile", "-4"], "--tile: expected auto or a number of pixels, got '-4'"),
        (["in", "-o", "out", "--tile", "0"], "--tile: expected auto or a number of pixels, got '0'"),
        (["in", "-o", "out", "--tile", "5"], "tile: expected at least 84 pixels for a network that sees 24 pixels"),
        (["in", "-o", "out", "--tile", "9" * 5000], "Exceeds the limit"),
        (["in", "-o", "out", "--model", "nowhere"], NOWHERE),
        (["in", "-o", "out", "--model", "C:/nowhere"], NOWHERE.replace("nowhere", "C:/nowhere")),
        (
            ["in", "-o", "out", "--model", "in"],
            "in: expected a checkpoint folder with config.json and ",
        ),
        (["in", "-o", "out", "--model", "https://a/b"], "https://a/b: nothing installed here reads https:/ ("),
        (["gone.jpg", "-o", "out"], "gone.jpg: no such file or folder"),
        (["in/*.tif", "-o", "out"], "in/*.tif: no such file or folder"),
        (["in", "more", "-o", "out"], "out/a.png: both in/a.png and more/a.png would be written there; restore them"),
        (["in", "-o", "in/a.png"], "in/a.png: is a file; expected a folder for what becomes of in"),
        (["in", "-o", "new.jpg"], "new.jpg: looks like one picture; expected a folder for what becomes of several"),
        (["in/a.png", "-o", "new.gif"], "new.gif: cannot write .gif; expected one of .bmp, .jpeg, .jpg, .png, "),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(ipt, arguments, message):
    photograph("in/a.png"), photograph("more/a.png")
    before = tree(".")
    result = ipt("restore", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"ipt: {message}")
    assert result.stderr.count("\n") == 1
    assert tree(".") == before


@pytest.mark.parametrize(
    "arguments", ["a.png", "-o out", "a.png -o out --strength much", "a.png -o out --device tpu", "a.png -o out --fast"]
)
def test_arguments_that_cannot_be_parsed_end_with_2(ipt, arguments):
    photograph("a.png")
    result = ipt("restore", *arguments.split())
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert tree(".") == ["a.png", "model/SHA256SUMS", "model/config.json", "model/model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_folder_with_a_file_missing_is_told(ipt, name):
    photograph("a.png")
    Path("model", name).unlink()
    for result in (ipt("restore", "a.png", "-o", "out"), ipt("understand", "rain")):
        assert result.exit_code == 2
        assert result.stderr == (
            f"ipt: model: expected a checkpoint folder with config.json and model.safetensors; no {name}\n"
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(ipt):
    photograph("a.png")
    result = ipt("restore", "a.png", "-o", "out", "--device", "cuda")
    assert (result.exit_code, result.stderr) == (
        2,
        "ipt: --device cuda: no GPU is available to torch here; use --device cpu\n",
    )


def fetch(uri, into):
    """Stands for what an installed package registers under ipt.models."""
    if uri != "models:/ipt@best":
        raise RuntimeError(f"store: no {uri}\nWhen it is back: try again")
    return Path("model").resolve()


def test_a_model_of_a_registry_is_fetched_by_whoever_knows_its_scheme(ipt, monkeypatch):
    monkeypatch.setitem(sys.modules, "known_fetchers", SimpleNamespace(fetch=fetch))
    known = EntryPoints([EntryPoint("models", "known_fetchers:fetch", "ipt.models")])
    monkeypatch.setattr(pretrained, "entry_points", lambda **wanted: known.select(**wanted))
    photograph("a.png")
    assert ipt("restore", "a.png", "-o", "out", "--model", "models:/ipt@best").exit_code == 0
    assert tree("out") == ["a.png"]
    result = ipt("restore", "a.png", "-o", "out", "--model", "models:/other@best")
    assert (result.exit_code, result.stderr) == (2, "ipt: store: no models:/other@best When it is back: try again\n")
    result = ipt("restore", "a.png", "-o", "out", "--model", "s3://bucket/model")
    assert result.stderr == "ipt: s3://bucket/model: nothing installed here reads s3:/ (known: models:/)\n"


def test_an_interruption_says_that_the_same_command_does_the_rest(ipt, monkeypatch):
    def interrupted(model, source, target, *rest):
        if source.name == "b.png":
            raise KeyboardInterrupt
        return restore_file(model, source, target, *rest)

    restore_file = photographs.restore_file
    photograph("in/a.png"), photograph("in/b.png"), photograph("in/c.png")
    with monkeypatch.context() as patch:
        patch.setattr(photographs, "restore_file", interrupted)
        result = ipt("restore", "in", "-o", "out")
    assert (result.exit_code, tree("out")) == (130, ["a.png"])
    assert result.stderr == "ipt: stopped; whole files only were written, the same command does the rest\n"
    assert ipt("restore", "in", "-o", "out").exit_code == 0
    assert tree("out") == ["a.png", "b.png", "c.png"]


def test_a_reader_that_goes_away_is_no_failure_to_tell_of(ipt, monkeypatch):
    def closed(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    photograph("a.png")
    monkeypatch.setattr("ipt.cli.print_reports", closed)
    result = ipt("restore", "a.png", "-o", "out")
    assert (result.exit_code, result.stderr) == (1, "")


def test_a_name_that_is_no_text_is_spelled_out(ipt):
    photograph("in/a.png").rename(os.fsdecode(b"in/caf\xe9.png"))
    result = ipt("restore", "in", "-o", "out")
    assert result.exit_code == 0
    assert result.stdout.startswith("in/caf\\udce9.png: denoise (")
    assert os.listdir(b"out") == [b"caf\xe9.png"]
    assert json.loads(ipt("restore", "in", "-o", "out", "--json").stdout)["status"] == "skipped"


def test_where_text_is_written_in_a_code_page_no_name_stops_it_and_sentences_are_utf_8(model, monkeypatch):
    """As Windows does into a file and out of one."""
    heard = []
    monkeypatch.setattr(InstructIPT, "read", lambda self, sentence: heard.append(sentence) or ((), {}))
    runner, given = CliRunner(charset="cp1252"), ["--model", "model"]
    photograph("in/фото é.png")
    result = runner.invoke(app, ["restore", "in", "-o", "out", *given])
    assert (result.exit_code, result.stdout[:36]) == (0, "in/\\u0444\\u043e\\u0442\\u043e é.png: d")
    assert runner.invoke(app, ["understand", *given], input="убери дождь\n".encode()).exit_code == 0
    assert heard == ["убери дождь"]


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report("a", "b", "unchanged", ("denoise",), "task"), "left as it is, nothing to denoise (as asked)"),
        (Report("a", "b", "restored", ("derain", "deblur"), "instruction", ("derain", "deblur")),
         "derain, deblur (understood: derain, deblur)"),
        (Report("a", "b", "unchanged", (), "blind", (), {"denoise": 0.2, "clean": 0.8}),
         "left as it is (instruction not understood; the picture looks clean, 80% sure)"),
        (Report("a", "b", "unchanged", (), "blind", None, {"denoise": 0.4, "clean": 0.3}),
         "left as it is (not sure what the picture needs; most likely denoise, 40%)"),
    ],
)  # fmt: skip
def test_what_was_done_and_why_in_words(report, words):
    done = Report(**(vars(report) | {"width": 3, "height": 4, "seconds": 1.25}))
    assert describe(done) == f"{words}, 3 x 4, 1.2 s -> b"


def test_sentences_are_understood_as_json_lines(ipt, asks):
    asks("derain")
    result = ipt("understand", "take away the rain", "", "убери дождь")
    assert (result.exit_code, result.stderr) == (0, "")
    for line in map(json.loads, result.stdout.splitlines()):
        assert line["understood"] == ["derain"]
        assert line["probabilities"] == {"denoise": 0.0, "derain": 1.0, "deblur": 0.0}
    assert len(result.stdout.splitlines()) == 3


def test_sentences_come_from_standard_input_too_and_a_bad_one_is_told_in_its_line(ipt):
    result = ipt("understand", input=b"take away the rain\r\n\xff\xfe\n" + b"rain " * 2000 + b"\nlast")
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["understood"] for line in lines] == [[]] * 4
    assert [bool(line["probabilities"]) for line in lines] == [True, True, False, True]
    assert lines[2]["error"].startswith("instruction: expected at most 2000 characters, got 10000")
    assert "error" not in lines[0]


def command(*arguments, python=()):
    """What starts the command as a process; `python`: what its interpreter is told."""
    return [sys.executable, *python, "-m", "ipt.cli", *arguments]


@pytest.mark.parametrize("arguments", [["--help"], ["restore", "--help"], ["restore", "a.jpg"]])
def test_help_does_not_wait_for_torch(arguments):
    done = subprocess.run(
        command(*arguments, python=["-X", "importtime"]), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (0 if "--help" in arguments else 2)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "typer" in imported
    assert not imported & {"torch", "numpy", "cv2", "PIL", "psutil"}


def test_control_c_leaves_whole_files_and_the_same_command_does_the_rest(ipt):
    slow = photograph("in/00.jpg", 500, 500)
    for number in range(1, 40):
        os.link(slow, slow.with_name(f"{number:02}.jpg"))
    process = subprocess.Popen(
        command("restore", "in", "-o", "out", "--model", "model", "--task", "denoise", "--precision", "fp32"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores it, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline().startswith("in/00.jpg: denoise (as asked), 500 x 500, ")
        process.stdout.readline()
        time.sleep(0.1)  # somewhere within the third
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert told == "ipt: stopped; whole files only were written, the same command does the rest\n"
    written = tree("out")
    assert 2 <= len(written) < 40
    assert written == [f"{number:02}.jpg" for number in range(len(written))]  # nothing of a temporary name
    assert len({Path("out", name).read_bytes() for name in written}) == 1
    read_photo("out/00.jpg")
    for number in range(len(written) + 1, 40):
        Path(f"in/{number:02}.jpg").unlink()
    rest = ipt("restore", "in", "-o", "out", "--task", "denoise")
    assert rest.exit_code == 0
    assert [": skipped, " in line for line in rest.stdout.splitlines()] == [True] * len(written) + [False]
    assert len({Path("out", name).read_bytes() for name in tree("out")}) == 1


def test_the_model_that_comes_with_the_package_is_the_one_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photograph("a.png")
    done = CliRunner().invoke(app, ["restore", "a.png", "-o", "out", "--task", "denoise"])
    assert (done.exit_code, done.stderr) == (0, "")
    released = InstructIPT.from_pretrained("instruct-ipt")
    expected = restore_image(released, read_photo("a.png").levels, task="denoise")
    assert np.array_equal(read_photo("out/a.png").levels, expected)
    assert not np.array_equal(expected, read_photo("a.png").levels)


@pytest.mark.parametrize(
    ("kind", "names"), [("png", ["a.png", "b.png", "c.png"]), ("jpg", ["a.jpg", "b.jpeg", "c.jpg"])]
)
def test_a_format_that_is_asked_for_is_what_is_written(ipt, kind, names):
    photograph("in/a.png"), photograph("in/b.jpeg"), photograph("in/c.bmp")
    assert ipt("restore", "in", "-o", "out", "--format", kind).exit_code == 0
    assert tree("out") == names
    assert {Image.open(Path("out", name)).format for name in names} == {{"jpg": "JPEG", "png": "PNG"}[kind]}


def test_a_format_that_makes_two_files_one_or_is_not_the_outputs_is_refused(ipt):
    photograph("in/a.png"), photograph("in/a.jpg")
    for output, message in (
        ("out", "out/a.tif: both in/a.jpg and in/a.png would be written there"),
        ("b.png", "b.png: looks like one picture"),
    ):
        refused = ipt("restore", "in", "-o", output, "--format", "tif")
        assert refused.exit_code == 2
        assert message in refused.stderr
    refused = ipt("restore", "in/a.png", "-o", "b.png", "--format", "tif")
    assert refused.stderr == "ipt: b.png: names .png, the format asked for is .tif; name one of them\n"
    assert tree(".") == ["in/a.jpg", "in/a.png", "model/SHA256SUMS", "model/config.json", "model/model.safetensors"]


def test_info_tells_model_and_machine(ipt, model):
    told = json.loads(ipt("info", "--json").stdout)
    assert told["tasks"] == list(model.config.tasks)
    assert told["numbers"] == sum(value.numel() for value in model.backbone.parameters())
    assert told["device"].startswith("CPU, ") or torch.cuda.is_available()
    lines = ipt("info").stdout.splitlines()
    assert "tasks       denoise, derain, deblur" in lines
    assert [line[:12].strip().replace(" ", "_") for line in lines] == list(told)


def test_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"ipt {version('instruct-ipt')}\n"


def test_what_becomes_of_a_private_picture_is_private(ipt):
    photograph("in/a.png").chmod(0o600)
    assert ipt("restore", "in", "-o", "out", "--compare").exit_code == 0
    assert {path.stat().st_mode & 0o777 for path in Path("out").iterdir()} == {0o600}


def test_a_comparison_that_is_there_stays_unless_it_may_be_replaced(ipt):
    photograph("in/a.png")
    Path("out").mkdir()
    Path("out/a.png.compare.jpg").write_bytes(b"mine")
    refused = ipt("restore", "in", "-o", "out", "--compare")
    assert refused.exit_code == 1
    assert "out/a.png.compare.jpg is there already; --overwrite replaces it" in refused.stderr
    assert Path("out/a.png.compare.jpg").read_bytes() == b"mine"
    assert not Path("out/a.png").exists()
    assert ipt("restore", "in", "-o", "out", "--compare", "--overwrite").exit_code == 0
    assert Path("out/a.png.compare.jpg").read_bytes() != b"mine"


def test_a_network_that_gives_no_numbers_writes_nothing(ipt, monkeypatch):
    before = photograph("in/a.png").read_bytes()
    monkeypatch.setattr("ipt.network.backbone.Backbone.forward", lambda self, *arguments: arguments[0] * float("nan"))
    for arguments in (["-o", "out"], ["-o", "in", "--overwrite"]):
        failed = ipt("restore", "in", *arguments, "--task", "denoise")
        assert failed.exit_code == 1
        assert "restoring gave values that are no numbers" in failed.stderr
    assert tree("in") == ["a.png"]
    assert Path("in/a.png").read_bytes() == before
    assert not Path("out").exists()
