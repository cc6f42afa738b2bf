"""Runs and data in `ray.storage`, killed before each system call with which they are written or removed: what is said
to be whole is whole, and the next run goes on. How: tests/crash_points.py."""

import hashlib
import json

import pytest
from crash_points import crash_points, tree

from pipelines.common.manifest import parse_manifest, read_manifest


@pytest.mark.slow
def test_a_training_checkpoint_and_which_is_the_last(start):
    """A worker's upload, on a disk: the last is always a whole one."""
    setup = """
from pathlib import Path
from types import SimpleNamespace
import ray.train
from pyarrow.fs import LocalFileSystem
from pipelines.cluster.checkpoints import Checkpoints, latest_checkpoint
from pipelines.cluster.storage import Patience, Storage
def upload(number):
    place = str(Path("runs/train-a").resolve())
    store = SimpleNamespace(experiment_fs_path=place, storage_filesystem=LocalFileSystem())
    ray.train.get_context = lambda: SimpleNamespace(get_storage=lambda: store)
    Path(f"made-{number}").mkdir(exist_ok=True)
    for name in ("model.safetensors", "training.pt"):
        Path(f"made-{number}", name).write_text(f"{number}" * 9)
    given = SimpleNamespace(path=f"made-{number}")
    state, patience = SimpleNamespace(step=number), Patience("here", 0, print)
    Checkpoints(state, Storage("runs"), "train-a", patience)._upload(given, f"checkpoint_{number}")
"""
    crashes = crash_points(start, "upload(2)", setup, "upload(1)")
    steps = []
    for crash in crashes:
        for folder in (crash.found, crash.after):
            run = folder / "runs/train-a"
            latest = json.loads((run / "latest.json").read_text())
            steps.append(latest["step"])
            assert latest["folder"] == f"checkpoint_{steps[-1]}"
            for name in ("model.safetensors", "training.pt"):
                assert (run / latest["folder"] / name).read_text() == f"{steps[-1]}" * 9
        assert steps[-1] == 2
        assert not list(crash.after.rglob("*.partial"))
    assert steps[::2] == sorted(steps[::2])
    assert set(steps[::2]) == {1, 2}


def test_a_run_that_is_removed_is_none_or_whole(start):
    setup = "from pipelines.cluster.storage import Storage"
    before = """
storage = Storage("runs")
for name in ("latest", "start", "format"):
    storage.write_json(f"train-a/{name}.json", {"folder": "checkpoint_1"})
for folder in ("checkpoint_1", "start"):
    storage.write_json(f"train-a/{folder}/weights", 1)
"""
    crashes = crash_points(start, "Storage('runs').remove('train-a')", setup, before)
    states = []
    for crash in crashes:
        run = crash.found / "runs/train-a"
        whole = all((run / folder / "weights").is_file() for folder in ("checkpoint_1", "start"))
        told = [name for name in ("latest", "start") if (run / f"{name}.json").is_file()]
        states.append((len(told), whole))
        assert whole or not told
        assert not (crash.after / "runs/train-a").exists()
    assert states[0] == (2, True)
    assert (0, False) in states


def test_what_is_published_is_whole_when_it_says_so(start):
    setup = "from pathlib import Path\nfrom pipelines.cluster.storage import Storage"
    before = "Path('shards').mkdir()\nfor name in 'ab':\n    Path('shards', name).write_text(name * 9)"
    crashes = crash_points(start, "Storage(str(Path('shared').resolve())).publish(Path('shards'))", setup, before)
    for folder in [folder for crash in crashes for folder in (crash.found, crash.after)]:
        complete = list(folder.glob("shared/data/*/complete.json"))
        assert complete or not folder.name.startswith("start-after")
        for each in complete:
            assert tree(each.parent / "shards") == {"a": b"a" * 9, "b": b"b" * 9}


PREPARE_ON_NODES = """
from collections import Counter
from pathlib import Path
import cv2
import numpy as np
import pandas
from ipt.photos import images
from pipelines.cluster import naming, spread
from pipelines.cluster.storage import Patience, Storage
from pipelines.common.params import Folder, Prepare, Source
from pipelines.pictures import sources, tile_shards
from pipelines.prepare import prepare_on_nodes
sources._files, spread.spread_small, naming._where = lambda: images, map, lambda: "here"
class Shards:  # what nodes do, done here
    def __init__(self, split, settings, seed, patience):
        self.split, self.settings, self.patience = split, settings, patience
    def write(self, pictures):
        tiles = tile_shards.cut_heap(pictures, self.settings, self.patience)[1]
        order = [0] * len(tiles["clean"])
        file = tile_shards.write_shard(f"{self.split}/0.parquet", self.settings, self.patience, order, tiles)
        return [file], Counter()
tile_shards.TileShards = Shards
def make(old):
    if old:
        Path("in").mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
            cv2.imwrite(f"in/{number}.png", pixels)
    side, storage = 16 if old else 8, Storage(str(Path("shared").resolve()))
    settings = Prepare((Source(Folder("in", (1.0,)), None, None),), side, side, 0.5, 0.0, 1.0, 0, 0.0, 4)
    prepare_on_nodes(settings, 0, Path("data/clean"), storage, Patience(storage.place, 0, print))
"""


@pytest.mark.slow
def test_the_manifest_of_a_shared_storage_names_what_is_there(start):
    crashes = crash_points(start, "make(0)", PREPARE_ON_NODES, "make(1)")
    found = [(crash.found / "data/clean/manifest.jsonl").read_bytes() for crash in crashes]
    old, new = found[0], found[-1]
    assert old != new
    assert found == [old] * found.count(old) + [new] * found.count(new)
    for crash in crashes:
        assert (crash.after / "data/clean/manifest.jsonl").read_bytes() == new
        assert new in {path.read_bytes() for path in crash.after.glob("shared/checkouts/*/*.jsonl")}, crash
        for folder in (crash.found, crash.after):
            for file in read_manifest(folder / "data/clean"):
                assert hashlib.sha256((folder / "shared" / file.address).read_bytes()).hexdigest() == file.sha256
            assert [path.name for path in (folder / "data").iterdir() if path.name[0] != "."] == ["clean"]
        assert [path.name for path in (crash.after / "data").iterdir()] == ["clean"]


GARBAGE = """
import os
from pathlib import Path
from pipelines import storage as stage
from pipelines.cluster import garbage, naming
from pipelines.cluster.storage import Storage
from pipelines.common.manifest import DataFile, write_manifest
garbage.AT_ONCE = 1  # two threads that delete are killed with one file gone, or both, or none
naming._where, stage.hashes_everywhere = lambda: "here", lambda every_commit: {}
def shared():
    return Storage(str(Path("shared").resolve()))
def begin():
    folder = Path("data/shards/derain")
    folder.mkdir(parents=True)
    for numbers in ("12", "23"):  # what the working tree had, and what it has
        files = [DataFile(f"train/{n}.parquet", (1,), (8, 8), 3, n * 64, "0" * 16) for n in numbers]
        with naming.keeping(shared(), folder):
            for file in files:
                shared().keep(file.address, b"xxx")
            write_manifest(folder, files)
    shared().keep("files/44/left.parquet", b"xxx")  # by who was killed before he had a manifest
def collect():
    if "-after-" in os.getcwd():
        naming.DEAD = -1.0  # the next run comes when the sign of the killed one is old
    stage.collect(shared(), 0.0, False, True, None)
"""


@pytest.mark.slow
def test_garbage_is_what_nobody_names_wherever_its_collector_is_killed(start):
    crashes = crash_points(start, "collect()", GARBAGE, "begin()")
    left = []
    for crash in crashes:
        for folder in (crash.found, crash.after):
            own, noted = read_manifest(folder / "data/shards/derain"), folder.glob("shared/checkouts/*/*.jsonl")
            files = [*own, *(file for path in noted for file in parse_manifest(path.read_bytes(), path))]
            assert all((folder / "shared" / file.address).is_file() for file in files), crash
        left.append(len([*crash.found.glob("shared/files/*/*.parquet")]))
        kept = {path.relative_to(crash.after / "shared").as_posix() for path in crash.after.glob("shared/files/*/*")}
        assert kept == {file.address for file in own}
        assert len([*crash.after.glob("shared/checkouts/*/*.jsonl")]) == 1
    assert left == sorted(left, reverse=True)
    assert {*left} == {4, 3, 2}
