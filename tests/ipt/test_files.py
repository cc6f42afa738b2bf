"""Files that are written whole or not at all, for those who may read them. Killed: tests/test_killed.py."""

import errno
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipt.files import replace_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def mask():
    """Files of this test are for everyone to read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_new_file_is_for_all_one_that_replaces_another_for_whom_that_was(tmp_path):
    for name, permissions in (("new", None), ("private", 0o600), ("shared", 0o664)):
        if permissions:
            (tmp_path / name).write_text("old")
            (tmp_path / name).chmod(permissions)
        with replace_file(tmp_path / name) as temporary:
            assert temporary.name.startswith(".")
            assert mode(temporary) & 0o077 == 0 or permissions is None  # nobody else reads it before it is done
            temporary.write_text("new")
        assert mode(tmp_path / name) == (permissions or 0o644)
        assert (tmp_path / name).read_text() == "new"


def test_a_file_made_of_another_is_for_whom_that_is(tmp_path):
    (tmp_path / "source").write_text("mine")
    (tmp_path / "source").chmod(0o600)
    with replace_file(tmp_path / "made", like=tmp_path / "source") as temporary:
        temporary.write_text("mine too")
    assert mode(tmp_path / "made") == 0o600


def test_on_windows_a_file_made_of_one_that_is_read_only_can_be_replaced(tmp_path, monkeypatch):
    """As those of a memory card with its lock on."""
    (tmp_path / "source").write_text("mine")
    (tmp_path / "source").chmod(0o444)
    monkeypatch.setattr(sys, "platform", "win32")
    with replace_file(tmp_path / "made", like=tmp_path / "source") as temporary:
        temporary.write_text("mine too")
    assert mode(tmp_path / "made") & stat.S_IWUSR


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")

    def write():
        with replace_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_the_longest_name_a_disk_takes_can_be_written(tmp_path):
    name = "a" * 251 + ".jpg"
    with replace_file(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_many_writers_of_one_file_each_have_a_temporary_name_of_their_own(tmp_path):
    def write(number: int) -> str:
        with replace_file(tmp_path / "a") as temporary:
            temporary.write_text(str(number) * 1000)
            return temporary.name

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(write, range(50)))
    assert len(names) == 50
    assert len(set((tmp_path / "a").read_text())) <= 2  # of one writer, whole
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_what_dead_writers_of_this_file_left_is_removed(tmp_path):
    with replace_file(tmp_path / "b") as other, replace_file(tmp_path / "a") as first:
        first.write_text("first")
        dead = first.with_name(first.name.replace(first.name.split(".")[2], "0" * 16))
        dead.write_text("half")
        with replace_file(tmp_path / "a") as second:
            assert not dead.exists()
            assert first.exists()
            assert other.exists()
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "second"
    assert (tmp_path / "a").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_written_is_on_the_disk_before_it_gets_its_name_and_then_the_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("ipt.files.os.fsync", lambda number: order.append(os.fstat(number).st_ino))
    rename = os.replace
    monkeypatch.setattr("ipt.files.os.replace", lambda *names: (order.append("replace"), rename(*names)))
    with replace_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert order == [(tmp_path / "a").stat().st_ino, "replace", tmp_path.stat().st_ino]


def test_a_disk_that_cannot_have_names_written_is_written_to_all_the_same(tmp_path, monkeypatch):
    sync = os.fsync

    def cannot(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(number)

    monkeypatch.setattr("ipt.files.os.fsync", cannot)
    with replace_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a").read_text() == "x"
