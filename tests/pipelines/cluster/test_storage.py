"""The storage: here, in a shared folder and in an object store; what is published there is copied once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.cluster import storage as module
from pipelines.cluster.storage import Patience, Storage, StorageError, content_hash
from pipelines.data.rows import open_parquet
from pipelines.data.shards import read_pairs, row_groups_of
from pipelines.data.tiles import open_tiles


@pytest.fixture(params=["here", "shared", "s3"])
def storage(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if request.param == "s3":
        return Storage(f"{request.getfixturevalue('s3').uri}/{tmp_path.name}/")
    return Storage("runs" if request.param == "here" else str(tmp_path / "shared"))


def test_json_comes_back_and_is_gone_when_removed(storage):
    assert storage.read_json("run/lives.json") is None
    storage.write_json("run/lives.json", [{"step": 3}])
    storage.write_json("run/lives.json", [{"step": 4}])
    assert storage.read_json("run/lives.json") == [{"step": 4}]
    storage.remove("run")
    storage.remove("run")
    assert storage.read_json("run/lives.json") is None


def test_many_who_write_one_name_at_once_leave_the_file_of_one(storage):
    """As two checkouts that publish the same do."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: storage.write_json("run/complete.json", number), range(64)))
    assert storage.read_json("run/complete.json") in range(64)
    assert [file.name for file in storage.files("run")] == ["run/complete.json"]


def test_what_nodes_read_is_where_they_see_it(storage, shards):
    place = storage.publish(shards / "denoise")
    if storage.only_shared:
        assert place == f"{storage.place}/data/{content_hash(shards / 'denoise')}/denoise"
    else:
        assert place == str(shards / "denoise")
    here, there = row_groups_of(shards / "denoise/train"), row_groups_of(shards / "denoise/train", place)
    assert here.rows.tolist() == there.rows.tolist()
    for ours, copied in zip(here.paths, there.paths, strict=True):
        assert copied.startswith(place)
        assert open_parquet(copied).read().equals(open_parquet(ours).read())
    with pytest.raises(FileNotFoundError, match=r"val\.parquet: expected clean tiles; make them with"):
        open_tiles(shards / "val.parquet", place)


def test_a_copy_is_made_once_and_again_where_it_was_not_complete(tmp_path, monkeypatch):
    folder = tmp_path / "derain"
    (folder / "train").mkdir(parents=True)
    (folder / "train/a").write_text("first")
    storage = Storage(str(tmp_path / "shared"))
    place = storage.publish(folder)
    uploaded = []
    monkeypatch.setattr("pipelines.cluster.storage.upload", lambda *what: uploaded.append(what))
    assert storage.publish(folder) == place
    assert not uploaded
    (tmp_path / "shared/data" / content_hash(folder) / "complete.json").unlink()
    storage.publish(folder)
    assert len(uploaded) == 1
    (folder / "train/a").write_text("other")
    assert storage.publish(folder) != place
    assert len(uploaded) == 2


def test_what_is_copied_is_on_the_disk_before_a_file_says_so(shards, tmp_path, monkeypatch):
    synced, before = [], []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    write_json = Storage.write_json
    monkeypatch.setattr(
        Storage, "write_json", lambda *given: (before.append(list(synced)), write_json(*given), synced.append("said"))
    )
    storage = Storage(str(tmp_path / "shared"))
    place = Path(storage.publish(shards / "denoise"))
    assert {path.stat().st_ino for path in (place.parent, place, *place.rglob("*"))} <= {*before[0]}
    complete = place.with_name("complete.json")
    assert synced[-3:] == [complete.stat().st_ino, place.parent.stat().st_ino, "said"]
    storage.copy("data", "more/other")
    other = tmp_path / "shared/more/other"
    copied = {path.stat().st_ino for path in (other.parent, other, *other.rglob("*"))}
    assert len(copied) > 4
    assert copied <= {*synced[synced.index("said") :]}


def test_the_hash_is_that_of_names_and_content(tmp_path):
    (tmp_path / "a").write_text("1")
    first = content_hash(tmp_path)
    assert first == content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert content_hash(tmp_path) != first


def test_what_cannot_be_a_storage_is_told(tmp_path):
    with pytest.raises(StorageError, match=r"ray\.storage: cannot open ftp://host/folder"):
        Storage("ftp://host/folder")
    with pytest.raises(StorageError, match=r"expected no '\?' in s3://bucket\?region=x; set options"):
        Storage("s3://bucket?region=x")
    with pytest.raises(FileNotFoundError, match=r"none: expected a folder to copy to .*; run the stage that makes it"):
        Storage(str(tmp_path)).publish(tmp_path / "none")


@pytest.mark.slow  # pyarrow tries for ten seconds itself
def test_an_object_store_that_is_away_is_waited_for(s3, shards, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.1)
    storage = Storage(f"{s3.uri}/away")
    place = storage.publish(shards / "denoise")
    rows = [(group, 0) for group in row_groups_of(shards / "denoise/train", place)]
    expected = read_pairs(rows)
    told = []

    def tell(text: str) -> None:
        told.append(text)
        s3.come_back()

    s3.leave()
    for got, images in zip(Patience(storage.place, 60, tell)(read_pairs, rows), expected, strict=True):
        np.testing.assert_array_equal(got, images)
    assert len(told) == 1
    assert told[0].startswith("storage s3://bucket/away: When ")  # pyarrow's own words follow


class Away:
    """A storage that is away for the first `times` calls."""

    def __init__(self, times: int) -> None:
        self.calls, self.times = 0, times

    def __call__(self, what: str) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError("no answer")
        return f"{what} after {self.calls} calls"


def test_patience_lasts_until_the_storage_is_back_and_tells_of_it_once(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    told = []
    assert Patience("/mnt/ipt", 60, told.append)(Away(3), "read") == "read after 4 calls"
    assert told == ["storage /mnt/ipt: no answer; trying again for 60 s"]


def test_patience_ends_and_is_for_storage_alone(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    away = Away(10**9)
    with pytest.raises(OSError, match="no answer"):
        Patience("/mnt/ipt", 0.1, [].append)(away, "read")
    assert away.calls > 2
    with pytest.raises(ZeroDivisionError):
        Patience("/mnt/ipt", 60, [].append)(lambda: 1 / 0)
