"""Tiles that the nodes of a cluster write: those of one machine, whoever makes them, and none is lost with a node."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cluster import spread
from pipelines.cluster.storage import Patience, Storage, say
from pipelines.common.manifest import read_manifest
from pipelines.common.params import DeadLeaves, Folder, Prepare, Source
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, rows_of
from pipelines.pictures import mixing
from pipelines.pictures import tile_shards as shards
from pipelines.pictures.dead_leaves import draw_dead_leaves
from pipelines.pictures.sources import Picture, SourceError
from pipelines.prepare import prepare, prepare_on_nodes


@pytest.fixture
def photos(tmp_path):
    """A folder with 12 pictures: one a copy, one cut short, and some flat tiles."""
    root = tmp_path / "photos"
    root.mkdir()
    for index in range(10):
        image = draw_dead_leaves(np.random.default_rng((99, index)), 96)
        image[:32, :64] = 0.5
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(root / f"{index}.png")
    shutil.copy(root / "3.png", root / "copy.png")
    (root / "cut.png").write_bytes((root / "4.png").read_bytes()[:3000])
    return root


@pytest.fixture
def settings(photos):
    return Prepare(
        sources=(Source(Folder(str(photos), (1.0, 0.5)), None, None), Source(None, None, DeadLeaves(5, 64))),
        tile=32, stride=24, val_share=0.2, flat_std=3.0, max_flat_share=0.05, duplicate_bits=3, max_bad_share=0.5,
        row_group_rows=8,
    )  # fmt: skip


def rows_in(folder, storage=None):
    """The rows of each split in their order, wherever they lie."""
    found = {}
    for split in ("train", "val"):
        names = [f"{split}.parquet"] if storage is None else addresses(folder, split)
        rows = [row for name in names for row in rows_of(pq.read_table(f"{storage or folder}/{name}"))]
        found[split] = [row | {"clean": row["clean"].tobytes()} for row in rows]
    return found


def addresses(folder, split):
    return [file.address for file in read_manifest(folder) if file.split == split]


def on_the_cluster(settings, target, place, seed=0):
    storage = Storage(str(place))
    return prepare_on_nodes(settings, seed, target, storage, Patience(storage.place, 0, say))


@pytest.fixture
def small(monkeypatch):
    """Several shards, each out of several heaps, and tiles that wait for their turn over many of both."""
    for module, name, value in (
        (mixing, "_SHUFFLE_TILES", 50),
        (shards, "_SHARD_TILES", 40),
        (shards, "_HEAP_TILES", 30),
    ):
        monkeypatch.setattr(module, name, value)


def test_rows_and_counts_are_those_of_one_machine(tmp_path, settings, local_ray, small):
    place = tmp_path / "shared"
    expected = prepare(settings, 0, tmp_path / "here")
    assert expected["flat_dropped"] > 0
    assert expected["duplicate_tiles_dropped"] > 0
    assert on_the_cluster(settings, tmp_path / "clean", place) == expected
    assert rows_in(tmp_path / "clean", place) == rows_in(tmp_path / "here")
    files = read_manifest(tmp_path / "clean")
    assert [sum(file.rows) for file in files if file.split == "train"][:-1] == [40] * (len(files) - 2)
    assert len(files) > 4
    assert pq.read_schema(place / files[0].address).equals(row_schema(CLEAN_COLUMNS, 32, 32), check_metadata=True)
    assert (tmp_path / "clean/quarantine.csv").read_text() == (tmp_path / "here/quarantine.csv").read_text()
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == ["manifest.jsonl", "quarantine.csv"]


def test_how_the_work_is_dealt_out_changes_nothing(tmp_path, settings, local_ray, small, monkeypatch):
    place = tmp_path / "shared"
    on_the_cluster(settings, tmp_path / "one", place)
    for module, name, value in ((spread, "BATCH", 1), (spread, "AHEAD", 0), (shards, "_HEAP_TILES", 200)):
        monkeypatch.setattr(module, name, value)
    on_the_cluster(settings, tmp_path / "two", place)
    assert (tmp_path / "one/manifest.jsonl").read_bytes() == (tmp_path / "two/manifest.jsonl").read_bytes()
    on_the_cluster(settings, tmp_path / "other", place, seed=1)
    assert addresses(tmp_path / "one", "train") != addresses(tmp_path / "other", "train")


def test_bad_sources_are_errors_as_on_one_machine(tmp_path, settings, local_ray):
    with pytest.raises(SourceError, match=r"1 of 12 pictures are bad, more than the share of 0.01 .*clean.quarantine"):
        on_the_cluster(replace(settings, max_bad_share=0.01), tmp_path / "clean", tmp_path / "shared")
    assert not (tmp_path / "clean").exists()
    assert "cut.png" in (tmp_path / "clean.quarantine.csv").read_text()
    enlarged = replace(settings, sources=(Source(Folder(settings.sources[0].folder.path, (1.5,)), None, None),))
    with pytest.raises(ValueError, match="above 0 up to 1"):
        on_the_cluster(enlarged, tmp_path / "clean", tmp_path / "shared")


def test_heaps_hold_each_picture_once_and_in_order(monkeypatch):
    monkeypatch.setattr(shards, "cpus", lambda: 1)
    monkeypatch.setattr(shards, "_HEAP_TILES", 10)
    pictures = [Picture("s", str(number), (1.0,), None, 8, tiles=number % 7) for number in range(50)]
    found = list(shards.heaps(pictures))
    assert [picture for heap in found for picture in heap] == pictures
    promised = [sum(picture.tiles for picture in heap) for heap in found]
    assert all(10 <= tiles < 16 for tiles in promised[:-1])
    assert [len(heap) for heap in shards.heaps([replace(each, tiles=1) for each in pictures[:8]])] == [2] * 4
