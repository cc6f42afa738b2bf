"""Who needs what in a storage, and who is at work there: nobody's files go while somebody may need them."""

import re
import shutil
import threading
import time

import pytest

from pipelines.cluster import naming
from pipelines.cluster.garbage import find_garbage, remove
from pipelines.cluster.naming import busy, checkout_id, checkout_root, collecting, dvc_hash, keeping, register
from pipelines.cluster.storage import Storage, StorageError
from pipelines.common.manifest import DataFile, write_manifest


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path, monkeypatch):
    """A shared storage; the process stands in the checkout `one`."""
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    if request.param == "folder":
        return Storage(str(tmp_path / "shared"))
    return Storage(f"{request.getfixturevalue('s3').uri}/{tmp_path.name}")


def keep(storage: Storage, folder, *contents: str) -> list[str]:
    """Make a data folder of these files; where they are in the storage."""
    files = [DataFile(f"train/{n:05d}.parquet", (1,), (8, 8), len(c), c * 64, "0" * 16) for n, c in enumerate(contents)]
    with keeping(storage, folder):
        for file in files:
            storage.keep(file.address, b"x" * file.bytes)
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, files)
    return [file.address for file in files]


def found(storage: Storage, own: set[str], age: float = -1.0) -> set[str]:
    """The names of the garbage; of an `age` below zero nothing is too young."""
    return {file.name for file in find_garbage(storage, own, [], age).files}


def test_what_a_checkout_has_made_is_kept_until_it_says_otherwise(storage, tmp_path):
    folder = tmp_path / "one/data/shards/derain"
    first = keep(storage, folder, "a", "b")
    old = dvc_hash(folder)
    second = keep(storage, folder, "b", "c")
    new = dvc_hash(folder)
    assert found(storage, {old, new}) == set()
    assert found(storage, {new}) == {first[0]}
    assert found(storage, {new}, age=3600) == set()  # too young
    garbage = find_garbage(storage, {new}, [], -1.0)
    remove(storage, garbage)
    assert {file.name for file in storage.files("files")} == set(second)
    assert found(storage, {new}) == set()


def test_what_another_checkout_needs_is_kept(storage, tmp_path, monkeypatch):
    ours = keep(storage, tmp_path / "one/data/shards/derain", "a", "b")
    one = checkout_id()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "two")
    theirs = keep(storage, tmp_path / "two/data/shards/derain", "b", "c")
    assert checkout_id() != one
    assert found(storage, set()) == {theirs[1]}  # two has no branch with what it made
    monkeypatch.chdir(tmp_path / "one")
    assert found(storage, set()) == {ours[0]}
    assert found(storage, {dvc_hash(tmp_path / "one/data/shards/derain")}) == set()


def test_what_nobody_has_named_goes_when_it_is_old_enough(storage):
    storage.keep("files/aa/aaa.parquet", b"of a killed run")
    assert found(storage, set(), 3600) == set()
    assert find_garbage(storage, set(), [], 3600).young == 1
    assert found(storage, set()) == {"files/aa/aaa.parquet"}


def why_not(storage: Storage) -> str | None:
    """Why garbage cannot be collected now."""
    try:
        with collecting(storage):
            return None
    except StorageError as error:
        return str(error)


def test_nobody_collects_while_somebody_writes_and_the_other_way_round(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(naming, "PAUSE", 0.05)
    with keeping(storage, tmp_path / "data"):
        assert "/one writes data or collects garbage there now; collect it when that has ended" in why_not(storage)
    with collecting(storage):
        assert "/one writes data or collects garbage there now" in why_not(storage)
    ended = []
    with collecting(storage):
        writer = threading.Thread(target=lambda: ended.append(keep(storage, tmp_path / "data", "a")))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()  # it waits
        assert list(storage.files("files")) == []
    writer.join(30)
    assert ended
    assert list(storage.files("busy")) == []


def test_who_was_killed_is_passed_over_after_a_while_and_who_lives_says_so(storage, tmp_path, monkeypatch):
    storage.write_json("busy/killed.json", "host:/folder")
    assert "host:/folder writes data or collects garbage there now" in why_not(storage)
    monkeypatch.setattr(naming, "DEAD", -1.0)
    assert why_not(storage) is None
    monkeypatch.setattr(naming, "REFRESH", 0.05)
    real, written = storage.write_json, threading.Event()
    with busy(storage, "one"):
        storage.write_json = lambda *what: written.set() or real(*what)
        assert written.wait(10)
    assert [file.name for file in storage.files("busy")] == ["busy/killed.json"]


@pytest.mark.parametrize("ahead", [-1e6, 1e6])
def test_who_has_another_clock_than_the_storage_sees_the_same(storage, monkeypatch, ahead):
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + ahead)
    storage.keep("files/aa/aaa.parquet", b"just written")
    storage.write_json("busy/other.json", "host:/folder")
    assert find_garbage(storage, set(), [], 3600).young == 1
    assert "host:/folder writes data" in why_not(storage)
    assert abs(naming.storage_now(storage) - now) < 3600


def test_a_failed_run_names_nothing(storage, tmp_path):
    with pytest.raises(ZeroDivisionError), keeping(storage, tmp_path / "data"):
        storage.keep("files/aa/aaa.parquet", b"x" * (1 // 0))
    assert list(storage.files("busy")) == list(storage.files("checkouts")) == []


def test_a_local_storage_needs_none_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with keeping(Storage("runs"), tmp_path / "data"):
        pass
    register(Storage("runs"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_checkout_is_another_one_and_dvcs_temporary_ones_are_none(tmp_path, monkeypatch):
    (tmp_path / "one/.dvc/tmp/exps/standalone/x/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one")
    first = checkout_id()
    assert first == checkout_id()
    assert re.fullmatch("[0-9a-f]{16}", first)
    monkeypatch.chdir(tmp_path / "one/.dvc/tmp/exps/standalone/x")
    assert checkout_root() == tmp_path / "one"
    assert checkout_id() == first
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    monkeypatch.chdir(tmp_path / "two")
    assert checkout_id() != first


def test_a_folder_is_named_as_dvc_names_it(tmp_path, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "derain"
    folder.mkdir()
    write_manifest(folder, [DataFile("train/00000.parquet", (1,), (8, 8), 9, "a" * 64, "0" * 16)])
    (folder / "quarantine.csv").write_text("a,b\n")
    with Repo.init(no_scm=True) as repo:
        (stage,) = repo.add("derain")
    assert dvc_hash(folder) == stage.outs[0].hash_info.value
