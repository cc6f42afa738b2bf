"""The shim that kills: before each call that changes something, each once, native code and threads included."""

import pytest
from crash_points import crash_points, tree

WRITE = """
import os
os.path.isdir("a") or os.mkdir("a")
number = os.open("a/b", os.O_CREAT | os.O_WRONLY)
for half in (b"1", b"2"):
    os.write(number, half)
open("a/b").read()
os.close(number)
os.rename("a/b", "c")
os.rmdir("a")
os.unlink("c")
"""


def test_each_call_is_killed_once_and_nothing_of_it_is_done(tmp_path):
    (tmp_path / "start").mkdir()
    crashes = crash_points(tmp_path / "start", WRITE)
    calls = ["mkdir", "openat", "write", "write", "rename", "rmdir", "unlink", "end"]
    assert [crash.call for crash in crashes] == calls
    assert [tree(crash.found) for crash in crashes] == [
        {}, {"a": None}, {"a": None, "a/b": b""}, {"a": None, "a/b": b"1"}, {"a": None, "a/b": b"12"},
        {"a": None, "c": b"12"}, {"c": b"12"}, {},
    ]  # fmt: skip
    assert all(tree(crash.after) == {} for crash in crashes)


def test_what_a_thread_of_a_native_library_writes_is_counted(tmp_path):
    (tmp_path / "start/in").mkdir(parents=True)
    (tmp_path / "start/out").mkdir()
    for name in "ab":
        (tmp_path / "start/in" / name).write_text(name)
    setup = "from pyarrow.fs import LocalFileSystem, copy_files\nlocal = LocalFileSystem()"
    write = 'copy_files("in", "out", source_filesystem=local, destination_filesystem=local)'
    crashes = crash_points(tmp_path / "start", write, setup)
    calls = [crash.call for crash in crashes]
    assert calls[0] == "openat"
    assert len(calls) >= 5  # two files, each opened and written
    assert tree(crashes[0].found / "out") == {}
    assert tree(crashes[-1].found / "out") == {"a": b"a", "b": b"b"}


def test_a_run_that_fails_by_itself_is_no_crash(tmp_path):
    for name in ("start", "other"):
        (tmp_path / name).mkdir()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        crash_points(tmp_path / "start", "1 / 0")
    with pytest.raises(RuntimeError, match=r"FileExistsError(.|\n)*after a kill before openat, number 2, the next run"):
        crash_points(tmp_path / "other", 'import os\nos.mkdir("a")\nopen("a/b", "w")')
