"""Atomic writing: all of the new or all of the old, never a mixture. Killed: tests/test_killed.py."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ipt.files import replace_file
from pipelines.common import files
from pipelines.common.files import replace_folder, write_json


@pytest.fixture
def old_folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_is_replaced_whole(old_folder):
    with replace_folder(old_folder) as temporary:
        (temporary / "new.txt").write_text("new")
        assert _names(old_folder) == ["old.txt"]
    assert _names(old_folder) == ["new.txt"]
    assert _names(old_folder.parent) == ["out"]


def test_folder_and_its_parents_are_made(tmp_path):
    with replace_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "new.txt").write_text("new")
    assert _names(tmp_path / "a" / "b") == ["new.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_and_no_litter(old_folder, error):
    def fail_halfway():
        with replace_folder(old_folder) as temporary:
            (temporary / "new.txt").write_text("new")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert _names(old_folder) == ["old.txt"]
    assert _names(old_folder.parent) == ["out"]


def test_a_second_writer_leaves_the_first_ones_half_alone(old_folder):
    with replace_folder(old_folder) as first:
        (first / "first.txt").write_text("1")
        with replace_folder(old_folder) as second:
            (second / "second.txt").write_text("2")
        assert _names(first) == ["first.txt"]
    assert _names(old_folder) == ["first.txt"]  # the last to end
    assert _names(old_folder.parent) == ["out"]


def test_a_name_that_another_takes_for_a_dead_run_s_as_it_is_made_is_no_loss(old_folder, monkeypatch):
    make, taken = Path.mkdir, []

    def made_and_taken(path, *options, **more):
        make(path, *options, **more)
        if not taken and path.name.startswith(".out.partial-"):
            taken.append(path)
            shutil.rmtree(path)

    monkeypatch.setattr(Path, "mkdir", made_and_taken)
    with replace_folder(old_folder) as temporary:
        assert temporary not in taken
        (temporary / "new.txt").write_text("new")
    assert taken
    assert _names(old_folder) == ["new.txt"]
    assert _names(old_folder.parent) == ["out"]


def test_all_of_a_folder_is_on_the_disk_before_it_gets_its_name_and_then_the_name(old_folder, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda number: order.append(os.fstat(number).st_ino))
    swap = files._swap
    monkeypatch.setattr(files, "_swap", lambda *folders: (order.append("swap"), swap(*folders)))
    with replace_folder(old_folder) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep/new.txt").write_text("new")
        (temporary / "deep/nowhere").symlink_to("none")
    new = [old_folder, old_folder / "deep", old_folder / "deep/new.txt"]
    before, after = order[: order.index("swap")], order[order.index("swap") + 1 :]
    assert sorted(before) == sorted(path.stat().st_ino for path in new)
    assert after == [old_folder.parent.stat().st_ino]


def test_file_is_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    for text in ("old", "new"):
        with replace_file(target) as temporary:
            temporary.write_text(text)
        assert target.read_text() == text
    assert _names(target.parent) == ["a.txt"]


def test_an_exception_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_halfway():
        with replace_file(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_json_is_read_back_and_a_value_that_is_none_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"psnr": 30.5, "tasks": ["denoise"]})
    assert json.loads(target.read_text()) == {"psnr": 30.5, "tasks": ["denoise"]}
    assert target.read_text().endswith("}\n")
    with pytest.raises(TypeError):
        write_json(target, {"bad": object()})
    assert json.loads(target.read_text())["psnr"] == 30.5
    assert os.listdir(tmp_path) == ["a.json"]
