"""Reading shards and clean tiles: what is asked for, and every kind of damage told with the way to mend it."""

import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import rows as rows_module
from pipelines.data.pairs import load_pairs, spread_rows
from pipelines.data.png import encode_png
from pipelines.data.row_groups import RowGroup
from pipelines.data.rows import CLEAN_COLUMNS, SHARD_COLUMNS, images_of, row_schema, rows_of, write_rows
from pipelines.data.shards import ShardError, read_group, read_pairs, row_groups_of
from pipelines.data.tiles import open_tiles, read_tiles

REMEDY = r"remake it with `dvc repro -f -s synthesize@derain`$"
REMAKE = r"make them anew: `dvc repro -f -s prepare`$"


def as_png(rows: list[dict], columns: dict) -> pa.Table:
    """The same rows as version 1 of this code wrote them."""
    schema = pa.schema([(name, kind or pa.binary()) for name, kind in columns.items()])
    coded = [{k: encode_png(v) if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in rows]
    return pa.Table.from_pylist(coded, schema)


def shard(side: int, rows: int = 3, red: int = 0) -> list[dict]:
    images = np.random.default_rng(0).integers(0, 256, (rows, 2, side, side, 3), np.uint8)
    return [
        {"task": "derain", "image_id": str(n), "variant": 0, "degraded": images[n, 0], "clean": images[n, 1],
         "height": side, "width": side, "instruction": "", "severity": "{}", "seed": n}
        for n in range(rows)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder of shards with one file, 5 rows in row groups of 3."""
    folder = tmp_path / "shards" / "derain" / "train"
    folder.mkdir(parents=True)
    write_rows(folder / "00000.parquet", shard(6, 5), row_schema(SHARD_COLUMNS, 6, 6), 3)
    return folder


@pytest.fixture
def tiles(tmp_path):
    """A file of 5 clean tiles, in row groups of 3."""
    clean = [
        {"image_id": row["image_id"], "source": "s", "clean": row["clean"], "height": 6, "width": 6}
        for row in shard(6, 5)
    ]
    write_rows(tmp_path / "train.parquet", clean, row_schema(CLEAN_COLUMNS, 6, 6), 3)
    return tmp_path / "train.parquet"


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def test_pairs_come_in_the_order_asked_for_and_each_row_group_is_read_once(shards, monkeypatch):
    groups = list(row_groups_of(shards / "deblur" / "train"))
    places = [(groups[4], 2), (groups[0], 1), (groups[4], 0), (groups[0], 1), (groups[2], 2)]
    opened = []
    real = rows_module.open_parquet
    monkeypatch.setattr("pipelines.data.shards.open_parquet", lambda *place: opened.append(place) or real(*place))
    degraded, clean = read_pairs(places)
    assert len(opened) == 3
    assert degraded.shape == clean.shape == (5, 16, 16, 3)
    assert degraded.dtype == clean.dtype == np.uint8
    for (group, row), *images in zip(places, degraded, clean, strict=True):
        stored = rows_of(pq.ParquetFile(group.path).read_row_group(group.number))[row]
        np.testing.assert_array_equal(images, [stored["degraded"], stored["clean"]])


def test_loaded_pairs_are_the_levels_in_the_unit_interval(shards):
    table = pq.read_table(shards / "derain" / "val" / "00000.parquet")
    pairs = load_pairs(shards / "derain" / "val", 99)
    for name, images in zip(("degraded", "clean"), zip(*pairs, strict=True), strict=True):
        np.testing.assert_array_equal(images, images_of(table, name).astype(np.float32) / 255)
        assert all(image.dtype == np.float32 for image in images)
    assert len(spread_rows(shards / "derain" / "val", 4)) == 4


def told_or_whole(group: RowGroup, images: list) -> str:
    try:
        np.testing.assert_array_equal(read_group(group), images)
        return "whole"
    except ShardError as error:
        message = rf"{group.path} row group {group.number}: damaged shard \(.*{REMEDY}"
        return "told" if re.match(message, str(error), re.DOTALL) else str(error)


def test_any_flipped_bit_of_the_images_is_told_or_changes_nothing(folder):
    """The checksum of a page covers its content; a flipped bit of a page's header is caught or means nothing."""
    path = folder / "00000.parquet"
    content, groups = path.read_bytes(), row_groups_of(folder)
    whole = [read_group(group) for group in groups]
    footer, outcomes = pq.read_metadata(path), []
    for number, group in enumerate(groups):
        for column in (footer.row_group(number).column(i) for i in (3, 4)):
            for offset in range(0, column.total_compressed_size, 5):
                path.write_bytes(flipped(content, column.data_page_offset + offset, offset % 8))
                outcomes.append(told_or_whole(group, whole[number]))
    assert set(outcomes) <= {"told", "whole"}
    assert outcomes.count("told") > 0.9 * len(outcomes) > 100


def test_a_flipped_byte_of_a_page_is_told_with_its_file_and_the_remedy(folder):
    path, groups = folder / "00000.parquet", row_groups_of(folder)
    column = pq.read_metadata(path).row_group(1).column(3)
    assert column.path_in_schema == "degraded"
    place = column.data_page_offset + column.total_compressed_size * 3 // 4
    path.write_bytes(flipped(path.read_bytes(), place, 4))
    read_pairs([(groups[0], 0)])
    with pytest.raises(ShardError, match=rf"^{path} row group 1: damaged shard \(.*CRC checksum.*{REMEDY}"):
        read_pairs([(groups[0], 0), (groups[1], 0)])


def test_shards_of_version_1_are_refused_with_the_command_that_remakes_them(folder):
    path = folder / "00000.parquet"
    pq.write_table(as_png(shard(6), SHARD_COLUMNS), path)
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(rows of version 1, .* PNG files\); {REMEDY}"):
        row_groups_of(folder)


def test_shards_of_another_version_type_or_size_are_refused(folder):
    path = folder / "00001.parquet"
    write_rows(path, shard(6), row_schema(SHARD_COLUMNS, 6, 6).with_metadata({"instruct_ipt.rows": "9"}), 3)
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(rows of version 9, expected 2; .*{REMEDY}"):
        row_groups_of(folder)
    pq.write_table(pq.read_table(folder / "00000.parquet").set_column(9, "seed", pa.array([0.5] * 5)), path)
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(seed is double, expected int64\); {REMEDY}"):
        row_groups_of(folder)
    write_rows(path, shard(7), row_schema(SHARD_COLUMNS, 7, 7), 3)
    message = rf"^{path}: damaged shard \(images of .*6, 6, .*7, 7, .* expected one size in all .* folder\); {REMEDY}"
    with pytest.raises(ShardError, match=message):
        row_groups_of(folder)


def test_shards_without_a_row_are_refused(folder):
    write_rows(folder / "00000.parquet", [], row_schema(SHARD_COLUMNS, 6, 6), 3)
    with pytest.raises(ShardError, match=rf"expected samples, got shards without rows.*{REMEDY}"):
        row_groups_of(folder)
    with pytest.raises(ShardError, match="shards without rows"):
        load_pairs(folder, 3)


def test_a_row_group_replaced_by_other_rows_after_opening_is_damage(folder):
    (group, *_) = row_groups_of(folder)
    shutil.copy(folder / "00000.parquet", folder / "kept")
    pq.write_table(as_png(shard(6), SHARD_COLUMNS), group.path)
    with pytest.raises(ShardError, match=rf"^{group.path} row group 0: damaged shard \(rows of version 1.*{REMEDY}"):
        read_group(group)


def test_clean_tiles_come_back_by_number(tiles):
    rows = read_tiles(open_tiles(tiles), np.array([0, 2, 4]))
    assert [row["image_id"] for row in rows] == ["0", "2", "4"]
    np.testing.assert_array_equal([row["clean"] for row in rows], [row["clean"] for row in shard(6, 5)][::2])


def test_clean_tiles_of_version_1_or_of_another_kind_are_refused_with_the_command_that_remakes_them(tiles):
    opened = open_tiles(tiles)
    rows = read_tiles(opened, np.arange(5))
    pq.write_table(as_png(rows, CLEAN_COLUMNS), tiles)
    message = rf"^{tiles}: no clean tiles can be read \(rows of version 1, .* PNG files\); {REMAKE}"
    with pytest.raises(ValueError, match=message):
        open_tiles(tiles)
    with pytest.raises(ValueError, match=message):
        read_tiles(opened, np.arange(1))
    write_rows(tiles, shard(6), row_schema(SHARD_COLUMNS, 6, 6), 3)
    with pytest.raises(ValueError, match=rf"no clean tiles can be read \(columns .*{REMAKE}"):
        open_tiles(tiles)


@pytest.mark.parametrize("content", [b"", b"not parquet at all", None], ids=["empty", "text", "truncated"])
def test_clean_tiles_that_are_not_parquet_are_told_with_the_remedy(tiles, content):
    tiles.write_bytes(tiles.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match=rf"^{tiles}: no clean tiles can be read \(.*{REMAKE}"):
        open_tiles(tiles)


def test_a_flipped_byte_of_clean_tiles_is_told_with_the_remedy(tiles):
    column = pq.read_metadata(tiles).row_group(1).column(2)
    assert column.path_in_schema == "clean"
    place = column.data_page_offset + column.total_compressed_size // 2
    tiles.write_bytes(flipped(tiles.read_bytes(), place, 0))
    opened = open_tiles(tiles)
    assert len(read_tiles(opened, np.arange(3))) == 3
    with pytest.raises(ValueError, match=rf"^{tiles}: no clean tiles can be read \(.*CRC checksum.*{REMAKE}"):
        read_tiles(opened, np.arange(4))


def test_missing_clean_tiles_are_told_with_the_stage_that_makes_them(tmp_path):
    for path in (tmp_path / "train.parquet", tmp_path / "nowhere" / "train.parquet"):
        with pytest.raises(FileNotFoundError, match=rf"^{path}: expected clean tiles; make them with `dvc repro prep"):
            open_tiles(path)


def test_clean_tiles_in_a_storage_that_is_away_are_no_damage(tiles, monkeypatch):
    """Patience waits for what is an OSError, and for nothing else."""
    opened = open_tiles(tiles)

    def away(*place: object) -> pq.ParquetFile:
        raise OSError("the storage is away")

    monkeypatch.setattr("pipelines.data.tiles.open_parquet", away)
    with pytest.raises(ValueError, match=r"no clean tiles can be read \(the storage is away"):
        read_tiles(opened, np.arange(3))
    monkeypatch.setattr(rows_module, "is_folder", lambda place: False)
    with pytest.raises(OSError, match=r"^the storage is away$"):
        read_tiles(opened, np.arange(3))


def test_a_storage_that_comes_back_between_two_reads_is_no_damage(folder, monkeypatch):
    (group, *_) = row_groups_of(folder)
    real, calls = rows_module.open_parquet, []

    def once_away(*place: str) -> pq.ParquetFile:
        calls.append(place)
        if len(calls) == 1:
            raise OSError("away")
        return real(*place)

    monkeypatch.setattr("pipelines.data.shards.open_parquet", once_away)
    assert len(read_group(group)[0]) == 3
    assert len(calls) == 2
