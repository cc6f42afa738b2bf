"""Synthesis: a row is a pure function, a shard one of its rows, and workers change nothing."""

import dataclasses
import hashlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from degradations.recipe import check_recipe, degrade, rng_for
from ipt.pixels import to_levels, to_unit
from pipelines import synthesize as stage
from pipelines.cluster.storage import Storage
from pipelines.common.manifest import read_manifest
from pipelines.common.params import ParamsError, Synthesize, Task, load_params
from pipelines.data.rows import CLEAN_COLUMNS, SHARD_COLUMNS, row_schema, rows_of, write_rows
from pipelines.data.tiles import open_tiles, read_tiles
from pipelines.synthesize import make_shard, shard_row, synthesize

TASK = Task(1, 1.0, [{"GaussianNoise": {"sigma": [5, 50]}}], ("remove the noise", "clean the grain", "denoise"))
SETTINGS = Synthesize(variants=2, tiles_per_shard=4, row_group_rows=3)
CLEAN_SCHEMA = row_schema(CLEAN_COLUMNS, 16, 16)


def plain(rows: list[dict]) -> list[dict]:
    """Rows that == compares: images as lists."""
    return [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        for row in rows
    ]


def make_tiles(count: int) -> list[dict]:
    images = np.random.default_rng(count).random((count, 16, 16, 3), np.float32)
    return [
        {
            "image_id": f"tile/{number}",
            "source": "s",
            "clean": to_levels(image),
            "height": 16,
            "width": 16,
        }
        for number, image in enumerate(images)
    ]


@pytest.fixture
def clean(tmp_path):
    """10 training and 3 held-out tiles, as `prepare` writes them."""
    folder = tmp_path / "clean"
    folder.mkdir()
    write_rows(folder / "train.parquet", make_tiles(10), CLEAN_SCHEMA, 4)
    write_rows(folder / "val.parquet", make_tiles(3), CLEAN_SCHEMA, 4)
    return folder


def hashes(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_row_holds_what_its_columns_say():
    (tile,) = make_tiles(1)
    row = shard_row("denoise", TASK, tile, 1, 5)
    assert set(row) == set(SHARD_COLUMNS)
    expected, severity = degrade(to_unit(tile["clean"]), TASK.recipe, rng_for(5, "denoise", "tile/0", 1))
    np.testing.assert_array_equal(row["degraded"], to_levels(expected))
    np.testing.assert_array_equal(row["clean"], tile["clean"])
    assert row["degraded"].dtype == row["clean"].dtype == np.uint8
    assert json.loads(row["severity"]) == severity
    assert row["instruction"] in TASK.instructions
    assert (row["task"], row["image_id"], row["variant"]) == ("denoise", "tile/0", 1)
    assert (row["height"], row["width"]) == (16, 16)
    assert 0 <= row["seed"] < 2**63


def test_a_row_is_the_same_alone_or_last_and_differs_by_each_argument():
    tiles = make_tiles(5)
    last = [shard_row("denoise", TASK, tile, variant, 0) for tile in tiles for variant in range(2)][-1]
    assert plain([shard_row("denoise", TASK, tiles[-1], 1, 0)]) == plain([last])
    others = [
        shard_row("denoise", TASK, tiles[-1], 0, 0),
        shard_row("denoise", TASK, tiles[-1], 1, 1),
        shard_row("denoise_too", TASK, tiles[-1], 1, 0),
        shard_row("denoise", TASK, tiles[-1] | {"image_id": "else"}, 1, 0),
    ]
    assert len({row["degraded"].tobytes() for row in [last, *others]}) == 5
    assert len({row["seed"] for row in [last, *others]}) == 5


def test_all_sentences_of_a_task_are_said():
    (tile,) = make_tiles(1)
    said = {shard_row("denoise", TASK, tile, variant, 0)["instruction"] for variant in range(40)}
    assert said == set(TASK.instructions)


@pytest.fixture
def tiles(clean):
    return {split: open_tiles(clean / f"{split}.parquet") for split in ("train", "val")}


def test_a_shard_holds_each_variant_of_its_tiles_once_and_repeats_by_the_byte(tiles):
    job = {"split": "train", "start": 4}
    shard, again = (
        make_shard(job, tiles=tiles, name="denoise", task=TASK, settings=SETTINGS, seed=0) for _ in range(2)
    )
    assert shard == again == job | {"name": "train/00001.parquet", "rows": 8, "content": again["content"]}
    table = pq.read_table(io.BytesIO(shard["content"]))
    assert table.schema.equals(row_schema(SHARD_COLUMNS, 16, 16), check_metadata=True)
    rows = plain(rows_of(table))
    expected = plain([shard_row("denoise", TASK, tile, v, 0) for tile in make_tiles(10)[4:8] for v in range(2)])
    key = lambda row: (row["image_id"], row["variant"])  # noqa: E731
    assert sorted(rows, key=key) == sorted(expected, key=key)
    assert rows != expected  # shuffled


@pytest.mark.parametrize(("start", "count"), [(0, 10), (0, 4), (3, 2), (2, 7), (8, 5), (10, 3)])
def test_tiles_are_read_by_number_across_row_groups(clean, start, count):
    tiles = read_tiles(open_tiles(clean / "train.parquet"), np.arange(start, start + count))
    assert plain(tiles) == plain(make_tiles(10)[start : start + count])


@pytest.fixture
def params():
    real = load_params(Path(__file__).parents[2] / "params.yaml")
    return dataclasses.replace(real, synthesize=SETTINGS)


def test_workers_change_nothing(params, tiles, tmp_path, local_ray, monkeypatch):
    """Real Ray, and one shard after the other here."""
    rows = synthesize("denoise", TASK, params, tiles, tmp_path / "two", Storage("runs"))
    assert rows == {"train": 20, "val": 6}
    monkeypatch.setattr(stage, "spread", map)
    assert synthesize("denoise", TASK, params, tiles, tmp_path / "one", Storage("runs")) == rows
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert list(hashes(tmp_path / "one")) == [
        "train/00000.parquet", "train/00001.parquet", "train/00002.parquet", "val/00000.parquet",
    ]  # fmt: skip
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "one" / "train").iterdir()) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "one", "two"]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_with_a_shared_storage_the_same_bytes_go_there_and_the_driver_gets_a_manifest(
    params, tiles, tmp_path, local_ray, monkeypatch, request, kind
):
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "shared") if kind == "folder" else f"{request.getfixturevalue('s3').uri}/{tmp_path.name}"
    storage, taken = Storage(place), []
    real = local_ray.get
    # A worker's environment is that of the Ray that was started before the object store.
    monkeypatch.setattr(stage, "spread", stage.spread if kind == "folder" else map)
    monkeypatch.setattr(local_ray, "get", lambda ref: taken.append(real(ref)) or taken[-1])
    rows = synthesize("denoise", TASK, params, tiles, tmp_path / "shards/denoise", storage)
    again = synthesize("denoise", TASK, params, tiles, tmp_path / "again/denoise", Storage(f"{place}/elsewhere"))
    monkeypatch.setattr(stage, "spread", map)
    assert rows == again == synthesize("denoise", TASK, params, tiles, tmp_path / "local", Storage("runs"))
    assert list(hashes(tmp_path / "shards")) == ["denoise/manifest.jsonl"]
    assert hashes(tmp_path / "shards") == hashes(tmp_path / "again")  # wherever the files are
    files = read_manifest(tmp_path / "shards/denoise")
    assert {file.name: file.sha256 for file in files} == hashes(tmp_path / "local")
    assert {file.address: file.bytes for file in files} == {file.name: file.bytes for file in storage.files("files")}
    assert list(storage.files("busy")) == []
    if kind == "folder":
        assert taken == [*files, *files]  # all that came back from the workers


def test_missing_clean_tiles_are_told(clean):
    (clean / "val.parquet").unlink()
    message = r"val\.parquet: expected clean tiles; make them with `dvc repro prepare`"
    with pytest.raises(FileNotFoundError, match=message):
        open_tiles(clean / "val.parquet")


def test_a_shard_that_cannot_be_made_leaves_the_old_ones(params, clean, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "spread", map)
    target = tmp_path / "shards" / "denoise"
    target.mkdir(parents=True)
    (target / "old").touch()
    (clean / "val.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.parquet: expected clean tiles"):
        synthesize("denoise", TASK, params, tiles, target, Storage("runs"))
    assert [path.name for path in target.parent.iterdir()] == ["denoise"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_an_unknown_task_is_told_before_anything_starts(monkeypatch):
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    monkeypatch.setattr(stage, "load_params", lambda: params)
    monkeypatch.setattr(stage, "connected", lambda: pytest.fail("Ray was started"))
    monkeypatch.setattr(sys, "argv", ["synthesize", "--task", "derian"])
    message = f"^--task derian: no such task in params.yaml; it has {', '.join(params.tasks)}$"
    with pytest.raises(ParamsError, match=message):
        stage.main()


def test_the_task_must_be_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["synthesize"])
    with pytest.raises(SystemExit):
        stage.main()
    assert "--task" in capsys.readouterr().err


def test_a_recipe_that_cannot_be_used_is_told_with_its_place(monkeypatch):
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    broken = dataclasses.replace(params.tasks["derain"], recipe=[{"Rian": {}}])
    monkeypatch.setattr(stage, "load_params", lambda: dataclasses.replace(params, tasks={"derain": broken}))
    monkeypatch.setattr(sys, "argv", ["synthesize", "--task", "derain"])
    place = re.escape("params.yaml.tasks.derain.recipe[0]: unknown transform 'Rian'; did you mean 'Rain'?")
    with pytest.raises(ValueError, match=place):
        stage.main()


def test_the_recipes_of_the_default_params_can_be_used():
    tasks = load_params(Path(__file__).parents[2] / "params.yaml").tasks
    assert tasks
    for name, task in tasks.items():
        check_recipe(task.recipe, name)
