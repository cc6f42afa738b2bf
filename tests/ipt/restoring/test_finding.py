"""Which files are restored, and to where."""

from pathlib import Path

import pytest

from ipt.reports import print_left_out
from ipt.restoring import finding
from ipt.restoring.finding import COMPARED, InputError, find_photographs


@pytest.fixture
def touch(tmp_path, monkeypatch):
    """Make files of a few bytes in the working directory, which is empty."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(b"some")

    return make


def pairs(inputs, output):
    return {source.as_posix(): target.as_posix() for source, target in find_photographs(inputs, Path(output))}


def test_a_file_goes_into_a_folder_or_to_a_file(touch):
    touch("in/a.jpg", "there/x")
    assert pairs(["in/a.jpg"], "out") == {"in/a.jpg": "out/a.jpg"}
    assert pairs(["in/a.jpg"], "there") == {"in/a.jpg": "there/a.jpg"}
    assert pairs(["in/a.jpg"], "new/b.PNG") == {"in/a.jpg": "new/b.PNG"}
    assert pairs(["in/a.jpg"], "in/a.jpg") == {"in/a.jpg": "in/a.jpg"}
    assert pairs(["in/a.jpg"], "holiday.2024") == {"in/a.jpg": "holiday.2024/a.jpg"}


def test_a_folder_keeps_its_tree_and_only_photographs_are_taken(touch):
    touch("in/a.jpg", "in/B.JPEG", "in/sub/deep/c.tif", "in/notes.txt", "in/d.gif", "in/.hidden.png")
    touch("in/.partial/a.jpg", "in/.thumbnails/b.png", "in/sub/.trash/c.png", f"in/a.jpg{COMPARED}")
    Path("in/folder.png").mkdir()
    assert pairs(["in"], "out") == {
        "in/B.JPEG": "out/B.JPEG",
        "in/a.jpg": "out/a.jpg",
        "in/sub/deep/c.tif": "out/sub/deep/c.tif",
    }


def test_what_is_left_out_is_counted(touch, capsys):
    touch("in/a.jpg", "in/b.dng", "in/sub/c.DNG", "in/d.gif", "in/README", "in/.hidden.dng", f"in/a.jpg{COMPARED}")
    touch("in/out/e.dng", "in/.git/f.dng", "other.dng", "in/sub/g.jpg")
    others = []
    find_photographs(["in", "in/sub", "in/a.jpg"], Path("in/out"), on_other=others.append)
    print_left_out(others)
    assert capsys.readouterr().err == "ipt: left out: 2 .dng, 1 .gif, 1 without suffix (files of other kinds)\n"
    find_photographs(["in/a.jpg"], Path("out"), on_other=pytest.fail)


def test_patterns_files_and_folders_go_together_and_each_file_is_taken_once(touch):
    touch("in/a.jpg", "in/b.png", "more/c.bmp", "in/[odd].webp")
    expected = {"in/a.jpg": "out/a.jpg", "in/b.png": "out/b.png", "more/c.bmp": "out/c.bmp"}
    assert pairs(["in/?.*", "more", "in/a.jpg", "./in/b.png"], "out") == expected
    assert pairs(["in/[odd].webp"], "out") == {"in/[odd].webp": "out/[odd].webp"}
    assert len(find_photographs(["in/a.jpg", "in/a.jpg"], Path("out"))) == 1


def test_results_inside_the_input_are_not_restored_again(touch):
    touch("in/a.jpg", "in/sub/b.jpg", "in/done/a.jpg", "in/done/sub/b.jpg")
    assert pairs(["in"], "in/done") == {"in/a.jpg": "in/done/a.jpg", "in/sub/b.jpg": "in/done/sub/b.jpg"}
    assert pairs(["in/**/*.jpg"], "in/done") == {"in/a.jpg": "in/done/a.jpg", "in/sub/b.jpg": "in/done/b.jpg"}
    assert pairs(["in/a.jpg", "in/done"], "in/done") == {"in/a.jpg": "in/done/a.jpg"}  # in/* of a shell


def test_a_deep_pattern_takes_files_not_the_folders_they_are_in(touch):
    touch("in/a.jpg", "in/sub/b.jpg")
    assert pairs(["in/**"], "out") == {"in/a.jpg": "out/a.jpg", "in/sub/b.jpg": "out/b.jpg"}


def test_a_folder_can_be_its_own_output(touch):
    touch("in/a.jpg", "in/sub/b.jpg")
    assert pairs(["in"], "in") == {"in/a.jpg": "in/a.jpg", "in/sub/b.jpg": "in/sub/b.jpg"}
    assert pairs(["in/*.jpg"], "in") == {"in/a.jpg": "in/a.jpg"}


def test_names_that_are_one_file_on_the_system_are_not_written_twice(touch, monkeypatch):
    touch("in/Caf\u00e9.heic", "in/cafe\u0301.jpg")
    assert len(pairs(["in"], "out")) == 2
    for system in ("darwin", "win32"):
        monkeypatch.setattr(finding.sys, "platform", system)
        with pytest.raises(InputError, match=r"both in/.* and in/.* would be written there; restore them apart"):
            pairs(["in"], "out")


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["nowhere.jpg"], "out", "^nowhere.jpg: no such file or folder$"),
        (["in/*.webp"], "out", r"^in/\*.webp: no such file or folder$"),
        (["empty"], "out", r"^empty: no file with one of the suffixes \.avif, \.bmp, \.heic, "),
        (["in", "more"], "out", "^out/a.jpg: both in/a.jpg and more/a.jpg would be written there; restore them apart$"),
        (["in"], "notes.txt", "^notes.txt: is a file; expected a folder for what becomes of in$"),
        (["in/a.jpg"], "notes.txt", "^notes.txt: is a file; expected a folder"),
        (["in"], "out.jpg", "^out.jpg: looks like one picture; expected a folder"),
        (["in/a.jpg", "in/b.jpg"], "out.jpg", "^out.jpg: looks like one picture; expected a folder"),
        (["in/a.jpg"], "out.heic", r"^out.heic: cannot write \.heic; expected one of \.bmp, "),
    ],
)
def test_inputs_that_cannot_be_worked_on_are_named(touch, inputs, output, message):
    touch("in/a.jpg", "in/b.jpg", "more/a.jpg", "empty/notes.txt", "notes.txt")
    with pytest.raises(InputError, match=message):
        find_photographs(inputs, Path(output))
