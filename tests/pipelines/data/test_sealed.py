"""Data whose files lie in a storage and are named by a manifest: read as the files themselves are, or told why not."""

import dataclasses
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.common.manifest import DataFile, ManifestError, read_manifest, write_manifest
from pipelines.common.params import Ingest
from pipelines.data.pairs import load_pairs, load_validation
from pipelines.data.rows import CLEAN_COLUMNS, describe, row_schema, write_rows
from pipelines.data.shards import ShardError, read_group, row_groups_of
from pipelines.data.tiles import open_tiles, read_tiles
from pipelines.training.groups import open_mix, read_groups

REMEDY = r"remake it with `dvc repro -f -s synthesize@derain`"


def keep(data, folder, storage) -> list[DataFile]:
    """Put the Parquet files of the data folder `data` into the storage, and a manifest of them into `folder`."""
    files = []
    for path in sorted(data.rglob("*.parquet")):
        name = path.relative_to(data).as_posix()
        files.append(describe(name if "/" in name else f"{path.stem}/00000.parquet", path.read_bytes()))
        target = storage / files[-1].address
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    folder.mkdir(parents=True)
    write_manifest(folder, files)
    return files


@pytest.fixture
def stored(shards, tmp_path):
    """The three tasks of `shards` as manifests in `tmp_path`/shards, with their files in `tmp_path`/storage."""
    for task in ("denoise", "derain", "deblur"):
        keep(shards / task, tmp_path / "shards" / task, tmp_path / "storage")
    return tmp_path / "shards", str(tmp_path / "storage")


@pytest.fixture
def tiles(tmp_path):
    """A folder of 13 clean tiles, as files and as a manifest of three files."""
    levels = np.random.default_rng(0).integers(0, 256, (13, 8, 8, 3), np.uint8)
    rows = [{"image_id": str(n), "source": "s", "clean": image, "height": 8, "width": 8}
            for n, image in enumerate(levels)]  # fmt: skip
    schema = row_schema(CLEAN_COLUMNS, 8, 8)
    for part in ("clean", "parts/train"):
        (tmp_path / part).mkdir(parents=True)
    write_rows(tmp_path / "clean/train.parquet", rows, schema, 3)
    for number, (first, last) in enumerate(((0, 5), (5, 6), (6, 13))):
        write_rows(tmp_path / f"parts/train/{number:05d}.parquet", rows[first:last], schema, 2)
    keep(tmp_path / "parts", tmp_path / "stored/clean", tmp_path / "storage")
    return open_tiles(tmp_path / "clean/train.parquet"), tmp_path / "stored/clean/train.parquet"


def stored_file(storage, files, number: int = 0):
    return storage / files[number].address


def test_groups_of_samples_are_the_same_in_both_forms(shards, stored, task_table):
    folder, storage = stored
    one = open_mix(shards, task_table, "train", 3)
    other = open_mix(folder, task_table, "train", 3, dict.fromkeys(task_table, storage))
    assert [groups.rows.tolist() for groups in one.row_groups] == [groups.rows.tolist() for groups in other.row_groups]
    ours, theirs = (read_groups(pickle.loads(pickle.dumps(mix)), Ingest(8, 0.5), 2, 9) for mix in (one, other))
    for name, images in ours.items():
        np.testing.assert_array_equal(images, theirs[name])


def test_held_out_pairs_are_the_same_in_both_forms(shards, stored):
    folder, storage = stored
    tasks = ("derain", "denoise")
    ours = load_validation(shards, tasks, 4)
    theirs = load_validation(folder, tasks, 4, dict.fromkeys(tasks, storage))
    np.testing.assert_array_equal([ours[task] for task in tasks], [theirs[task] for task in tasks])


@pytest.mark.parametrize("numbers", [[0], [4, 5, 6], range(13), [12, 13, 99], []])
def test_tiles_are_the_same_in_both_forms_across_files(tiles, tmp_path, numbers):
    one, path = tiles
    other = open_tiles(path, str(tmp_path / "storage"))
    assert one.rows.sum() == other.rows.sum() == 13
    ours, theirs = (read_tiles(each, np.array(numbers, int)) for each in (one, other))
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    np.testing.assert_array_equal([row["clean"] for row in ours], [row["clean"] for row in theirs])


def test_no_file_is_opened_to_know_where_the_rows_are(stored, task_table, tiles, tmp_path):
    folder, storage = stored
    shutil.rmtree(storage)
    mix = open_mix(folder, task_table, "train", 3, dict.fromkeys(task_table, storage))
    assert mix.row_groups[0].rows.tolist() == [3, 3, 1, 3, 2]
    assert len(open_tiles(tiles[1], storage)) == 8


def test_many_row_groups_travel_in_few_bytes(tmp_path):
    """An address, a footer and eight row groups of each file."""
    files = [DataFile(f"train/{n:05d}.parquet", (32,) * 8, (128, 128), 10**7 + n, f"{n:064x}", f"{n:016x}")
             for n in range(2000)]  # fmt: skip
    write_manifest(tmp_path, files)
    groups = row_groups_of(tmp_path / "train", "s3://bucket/some/where")
    assert len(pickle.dumps(groups)) < 2000 * 200
    (last,) = {groups[place] for place in (-1 + len(groups),)}
    assert (last.path, last.number) == (f"s3://bucket/some/where/{files[-1].address}", 7)
    assert last.seal == files[-1].seal(tmp_path)


def change(path, kind: str, other) -> None:
    if kind == "lost":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "stale":  # another shard under its name
        shutil.copy(other, path)
    elif kind == "of the same length":
        content = bytearray(path.read_bytes())
        content[-30] ^= 1  # in the footer
        path.write_bytes(content)
    elif kind == "a flipped bit":
        column = pq.read_metadata(path).row_group(0).column(3)
        content = bytearray(path.read_bytes())
        content[column.data_page_offset + column.total_compressed_size * 3 // 4] ^= 1  # in a page of images
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("lost", "No such file"),
        ("truncated", r"\d+ bytes, expected \d+ as its manifest says"),
        ("stale", r"\d+ bytes, expected|another file than its manifest names"),
        ("of the same length", "another file than its manifest names: footer"),
        ("a flipped bit", "CRC checksum"),
    ],
)
def test_a_shard_that_is_not_the_one_of_the_manifest_is_told_with_the_command_that_remakes_it(
    stored, tmp_path, kind, reason
):
    folder, storage = stored
    (group, *_) = row_groups_of(folder / "derain/train", storage)
    change(Path(group.path), kind, stored_file(tmp_path / "storage", read_manifest(folder / "denoise")))
    with pytest.raises(ShardError, match=rf"^{group.path} row group 0: damaged shard \(.*({reason}).*{REMEDY}$"):
        read_group(group)
    with pytest.raises(ShardError, match=REMEDY):
        load_pairs(folder / "derain/train", 2, storage)


@pytest.mark.parametrize("kind", ["lost", "truncated", "stale"])
def test_tiles_that_are_not_those_of_the_manifest_are_told_with_the_command_that_remakes_them(tiles, tmp_path, kind):
    files = read_manifest(tiles[1].parent)
    path = stored_file(tmp_path / "storage", files, 2)
    change(path, kind, stored_file(tmp_path / "storage", files, 0))
    opened = open_tiles(tiles[1], str(tmp_path / "storage"))
    assert len(read_tiles(opened, np.arange(6))) == 6
    with pytest.raises(ValueError, match=rf"^{path}: no clean tiles .*anew: `dvc repro -f -s prepare`$"):
        read_tiles(opened, np.arange(7))


def test_a_storage_that_is_away_is_waited_for_and_one_that_has_lost_all_says_so(stored):
    folder, storage = stored
    (group, *_) = row_groups_of(folder / "derain/train", storage)
    shutil.rmtree(storage)
    with pytest.raises(FileNotFoundError, match=rf"{REMEDY}, where {re.escape(storage)}/files is not away$"):
        read_group(group)


def test_a_manifest_without_a_storage_or_a_split_is_told(stored, tiles):
    folder, storage = stored
    message = r"derain/manifest\.jsonl: its files lie in a shared storage; name it in params\.yaml\.ray\.storage, or"
    with pytest.raises(ManifestError, match=message):
        row_groups_of(folder / "derain/train")
    with pytest.raises(ShardError, match=rf"expected samples, got shards without rows.*{REMEDY}"):
        row_groups_of(folder / "derain/test", storage)
    with pytest.raises(FileNotFoundError, match=r"val\.parquet: expected clean tiles; make them"):
        open_tiles(tiles[1].with_name("val.parquet"), storage)


def test_images_of_another_size_are_told(stored):
    folder, storage = stored
    files = read_manifest(folder / "derain")
    write_manifest(folder / "derain", [*files, dataclasses.replace(files[0], name="train/00009.parquet", shape=(9, 9))])
    with pytest.raises(ManifestError, match=rf"images of \[\(9, 9\), \(16, 16\)\], expected one size .*{REMEDY}"):
        row_groups_of(folder / "derain/train", storage)
