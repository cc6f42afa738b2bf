"""`python -m pipelines.storage`: what a branch, a tag, an experiment or another checkout names is never garbage."""

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipelines.cluster.garbage import registered
from pipelines.cluster.naming import dvc_hash, keeping
from pipelines.cluster.storage import Storage, StorageError
from pipelines.common.manifest import DataFile, write_manifest
from pipelines.common.params import load_params
from pipelines.data.rows import describe
from pipelines.storage import check, collect

DERAIN = Path("data/shards/derain")


def git(*words: str) -> str:
    done = subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)
    return done.stdout.decode()


def begin(folder: Path) -> None:
    """An empty checkout at `folder`, in which this process stands from then on."""
    folder.mkdir()
    os.chdir(folder)
    git("init", "-qb", "main")
    Repo.init().close()


def make(storage: Storage, *letters: str) -> list[str]:
    """What `synthesize` leaves: files in the storage, a manifest of them, and its hash in dvc.lock."""
    files = [DataFile(f"train/{n:05d}.parquet", (1,), (8, 8), 3, x * 64, "0" * 16) for n, x in enumerate(letters)]
    with keeping(storage, DERAIN):
        for file in files:
            storage.keep(file.address, b"xxx")
        DERAIN.mkdir(parents=True, exist_ok=True)
        write_manifest(DERAIN, files)
    lock(dvc_hash(DERAIN), 1)
    return [file.address for file in files]


def lock(md5: str, files: int) -> None:
    out = {"path": DERAIN.as_posix(), "hash": "md5", "md5": md5, "size": 1, "nfiles": files}
    with open("dvc.lock", "w") as file:
        YAML(typ="safe").dump({"schema": "2.0", "stages": {"synthesize@derain": {"cmd": "x", "outs": [out]}}}, file)


def commit(*words: str) -> None:
    git("add", "-f", "dvc.lock")
    git("commit", "-qm", "data")
    for word in words:
        git(*word.split())


def left(storage: Storage) -> set[str]:
    return {file.name for file in storage.files("files")}


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and back at the end
    begin(tmp_path / "one")
    return Storage(str(tmp_path / "shared"))


def test_only_what_nothing_names_is_removed_and_only_when_asked(storage, capsys):
    kept = [make(storage, "1", "2")]
    commit("tag old")
    kept.append(make(storage, "2", "3"))
    commit("update-ref refs/exps/12/3456/quick-fox HEAD", "reset -q --hard old")
    gone = make(storage, "3", "4")
    gone += make(storage, "5")
    kept.append(make(storage, "6"))  # in the working tree, and in no commit
    collect(storage, 0, False, False, None)
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("/one) names 3 data folders")
    assert told[-1] == f"storage: of 6 files in {storage.place}, 2, 0.0 MB, would go: --delete"
    assert len(left(storage)) == 6
    collect(storage, 24, False, True, None)
    assert len(left(storage)) == 6  # made today
    collect(storage, 0, False, True, None)
    assert left(storage) == {name for names in kept for name in names} == {*left(storage)} - {gone[1], gone[2]}
    collect(storage, 0, False, False, None)
    assert " 0, 0.0 MB, would go" in capsys.readouterr().out.splitlines()[-1]


def test_every_commit_can_be_kept(storage):
    first = make(storage, "1")
    commit()
    second = make(storage, "2")
    commit()
    collect(storage, 0, True, True, None)
    assert left(storage) == {*first, *second}
    collect(storage, 0, False, True, None)
    assert left(storage) == {*second}


def test_two_checkouts_do_not_take_one_anothers_data(storage, tmp_path, capsys):
    ours = make(storage, "1", "2")
    commit()
    begin(tmp_path / "two")
    theirs = make(storage, "2", "3")
    os.chdir(tmp_path / "one")
    collect(storage, 0, False, True, None)
    assert left(storage) == {*ours, *theirs}
    told = capsys.readouterr().out
    (other,) = {line.split()[1] for line in told.splitlines() if line.endswith("/two) names 1 data folders")}
    with pytest.raises(ValueError, match=rf"--forget two: expected another checkout of {storage.place}: {other}$"):
        collect(storage, 0, False, True, "two")
    collect(storage, 0, False, False, other)
    assert " 1, 0.0 MB, would go: --delete" in capsys.readouterr().out
    assert left(storage) == {*ours, *theirs}
    collect(storage, 0, False, True, other)
    assert left(storage) == {*ours}


def test_a_clone_that_has_used_nothing_yet_keeps_what_its_branches_name(storage, tmp_path):
    """What it names is in DVC's cache, or not to be known: then nothing is removed."""
    ours = make(storage, "1")
    commit()
    subprocess.run(["git", "clone", "-q", str(tmp_path / "one"), str(tmp_path / "two")], check=True)
    os.chdir(tmp_path / "two")
    Repo.init(force=True).close()
    (one,) = registered(storage)
    collect(storage, 0, False, True, one)  # the first one is gone, and its branch is here
    assert left(storage) == {*ours}
    storage.remove("checkouts")
    with pytest.raises(StorageError, match=r"another data/shards/derain \(\w+\), and neither .* `dvc fetch --all-bran"):
        collect(storage, 0, False, True, None)
    Path(".dvc/config.local").write_text(f"[cache]\ndir = {tmp_path}/one/.dvc/cache\n")
    os.chdir(tmp_path / "one")
    with Repo(".") as repo:
        repo.add(str(DERAIN))  # as `dvc repro` puts it into the cache
    os.chdir(tmp_path / "two")
    collect(storage, 0, False, True, None)
    assert left(storage) == {*ours}
    lock("0" * 32 + ".dir", 3)  # of Parquet files: nothing of it is in the storage
    collect(storage, 0, False, True, None)
    assert left(storage) == {*ours}


def test_a_local_storage_has_no_garbage(storage):
    with pytest.raises(StorageError, match=r"ray\.storage: .*/runs is no shared storage: DVC has the data"):
        collect(Storage("runs"), 0, False, True, None)


def test_check_tells_what_is_lost_or_another_with_the_command_that_remakes_it(storage, shards, capsys):
    real = load_params(Path(__file__).parents[2] / "params.yaml")
    params = dataclasses.replace(real, ray=dataclasses.replace(real.ray, storage=storage.place))
    contents = [path.read_bytes() for path in sorted((shards / "denoise/train").iterdir())]
    files = [describe(f"train/{number:05d}.parquet", content) for number, content in enumerate(contents)]
    for file, content in zip(files, contents, strict=True):
        storage.keep(file.address, content)
    DERAIN.mkdir(parents=True)
    write_manifest(DERAIN, files)
    assert check(params, read=True)
    assert capsys.readouterr().out == f"storage: {DERAIN}: all 2 files are there, 0.0 MB\n"
    storage.keep(files[0].address, contents[0][:-1] + b"x")
    assert check(params, read=False)
    assert not check(params, read=True)
    assert "0 of 2 files are not in" in capsys.readouterr().out
    storage.remove(files[1].address)
    assert not check(params, read=False)
    told = capsys.readouterr().out
    assert f"1 of 2 files are not in {storage.place}, 0 are others (train/00001.parquet): remake it: `dvc repro" in told
    assert told.endswith("-f -s synthesize@derain`\n")
