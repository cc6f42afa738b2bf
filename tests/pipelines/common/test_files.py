"""Atomic writing: all of the new or all of the old, never a mixture."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipt.files import replace_file
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


def test_a_killed_run_leaves_the_old_folder_and_the_next_one_cleans_up(old_folder):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pipelines.common.files import replace_folder\n"
        "with replace_folder(Path(sys.argv[1])) as temporary:\n"
        "    (temporary / 'new.txt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script, old_folder], cwd=root, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert _names(old_folder) == ["old.txt"]
    assert len(_names(old_folder.parent)) == 2  # with what was left under a temporary name
    with replace_folder(old_folder) as temporary:
        (temporary / "new.txt").write_text("new")
    assert _names(old_folder) == ["new.txt"]
    assert _names(old_folder.parent) == ["out"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_at_any_rename_it_loses_nothing(old_folder, renames):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pipelines.common.files import replace_folder\n"
        "left, rename = [int(sys.argv[2])], os.replace\n"
        "def counted(*names):\n"
        "    if left[0] == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    rename(*names)\n"
        "os.replace = counted\n"
        "with replace_folder(Path(sys.argv[1])) as temporary:\n"
        "    (temporary / 'new.txt').write_text('new')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [sys.executable, "-c", script, old_folder, str(renames)]
    subprocess.run(arguments, cwd=Path(__file__).parents[3], check=False, timeout=60)

    def next_run_fails():
        with replace_folder(old_folder):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        next_run_fails()
    assert _names(old_folder) == (["old.txt"] if renames < 2 else ["new.txt"])
    assert _names(old_folder.parent) == ["out"]


def test_a_second_writer_leaves_the_first_ones_half_alone(old_folder):
    with replace_folder(old_folder) as first:
        (first / "first.txt").write_text("1")
        with replace_folder(old_folder) as second:
            (second / "second.txt").write_text("2")
        assert _names(first) == ["first.txt"]
    assert _names(old_folder) == ["first.txt"]  # the last to end
    assert _names(old_folder.parent) == ["out"]


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
