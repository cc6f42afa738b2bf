"""Rows that cross stage borders: exact images, repeatable bytes, readable by anybody."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.rows import (
    CLEAN_COLUMNS,
    SHARD_COLUMNS,
    check_rows,
    image_shape,
    images_of,
    parquet_files,
    read_rows,
    row_schema,
    rows_of,
    write_rows,
)

SHARD = row_schema(SHARD_COLUMNS, 6, 7)


def random_levels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain(rows: list[dict]) -> list[dict]:
    """Rows that == compares, images as the bytes that are stored."""
    return [{name: v.tobytes() if isinstance(v, np.ndarray) else v for name, v in row.items()} for row in rows]


def written(rows: list[dict], schema: pa.Schema = SHARD, size: int = 3) -> pa.BufferReader:
    content = io.BytesIO()
    write_rows(content, rows, schema, size)
    return pa.BufferReader(content.getvalue())


@pytest.fixture
def rows():
    return [
        {
            "task": "derain", "image_id": f"builtin/cat@1.0/{number}", "variant": number % 2,
            "degraded": random_levels(6, 7, number), "clean": random_levels(6, 7, 99 + number),
            "height": 6, "width": 7, "instruction": "remove the räin",
            "severity": '{"Rain": {"angle": 3.5}}', "seed": 2**55 + number,
        }
        for number in range(7)
    ]  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(1, 5))
def test_images_of_any_size_come_back_exactly(height, width, count, size):
    images = [random_levels(height, width, seed) for seed in range(count)]
    tiles = [
        {"image_id": f"{number}", "source": "s", "clean": image, "height": height, "width": width}
        for number, image in enumerate(images)
    ]
    table = pq.read_table(written(tiles, row_schema(CLEAN_COLUMNS, height, width), size))
    check_rows(table.schema, CLEAN_COLUMNS)
    got = images_of(table, "clean")
    assert got.dtype == np.uint8
    assert got.shape == (count, height, width, 3)
    for levels, image in zip(got, images, strict=True):
        np.testing.assert_array_equal(levels, image)


def test_rows_come_back_also_with_plain_pyarrow_and_pandas(tmp_path, rows):
    write_rows(tmp_path / "a.parquet", rows, SHARD, row_group_rows=3)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == plain(rows)
    assert plain(rows_of(table)) == plain(rows)
    assert pq.read_schema(tmp_path / "a.parquet").equals(SHARD, check_metadata=True)
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert list(frame.columns) == SHARD.names == list(SHARD_COLUMNS)
    assert frame.to_dict("records") == plain(rows)
    for number, row in enumerate(frame.itertuples()):  # as the module says
        clean = np.frombuffer(row.clean, np.uint8).reshape(row.height, row.width, 3)
        np.testing.assert_array_equal(clean, random_levels(6, 7, 99 + number))


def test_clean_rows_come_back():
    row = {"image_id": "a", "source": "builtin", "clean": random_levels(3, 4), "height": 3, "width": 4}
    table = pq.read_table(written([row, row], row_schema(CLEAN_COLUMNS, 3, 4), 8))
    assert plain(rows_of(table)) == plain([row, row])


@pytest.mark.parametrize(("size", "groups"), [(3, [3, 3, 1]), (7, [7]), (100, [7]), (1, [1] * 7)])
def test_row_groups_have_the_size_asked_for(rows, size, groups):
    footer = pq.read_metadata(written(rows, size=size))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == groups


@settings(deadline=None, max_examples=30)
@given(numbers=st.sets(st.integers(0, 9)), size=st.integers(1, 8))
def test_rows_are_read_by_number_across_row_groups(numbers, size):
    tiles = [
        {"image_id": f"{n}", "source": "s", "clean": random_levels(2, 3, n), "height": 2, "width": 3} for n in range(7)
    ]
    file = pq.ParquetFile(written(tiles, row_schema(CLEAN_COLUMNS, 2, 3), size))
    got = read_rows(file, np.array(sorted(numbers), int))
    assert plain(got) == plain([tiles[number] for number in sorted(numbers) if number < 7])


@pytest.mark.parametrize("size", [1, 3])
def test_images_are_written_row_by_row_however_they_lie_in_memory(rows, size):
    laid = [row | {"clean": np.asfortranarray(row["clean"]), "degraded": row["degraded"][::-1, ::-1]} for row in rows]
    table = pq.read_table(written(laid, size=size))
    np.testing.assert_array_equal(images_of(table, "clean"), [row["clean"] for row in rows])
    np.testing.assert_array_equal(images_of(table, "degraded"), [row["degraded"][::-1, ::-1] for row in rows])


def test_bytes_depend_on_the_rows_alone(tmp_path, rows):
    write_rows(tmp_path / "a.parquet", rows, SHARD, 3)
    reordered = [dict(reversed(row.items())) for row in rows]
    for row in reordered:
        row["clean"] = np.asfortranarray(row["clean"])  # the same values, laid out otherwise
    write_rows(tmp_path / "another-name.parquet", iter(reordered), SHARD, 3)
    first = (tmp_path / "a.parquet").read_bytes()
    assert (tmp_path / "another-name.parquet").read_bytes() == first
    rows[4]["seed"] += 1
    write_rows(tmp_path / "a.parquet", rows, SHARD, 3)
    assert (tmp_path / "a.parquet").read_bytes() != first
    rows[4]["seed"] -= 1
    rows[4]["clean"] = rows[4]["clean"] ^ 1
    write_rows(tmp_path / "a.parquet", rows, SHARD, 3)
    assert (tmp_path / "a.parquet").read_bytes() != first


@pytest.mark.parametrize("name", ["degraded", "clean"])
@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((6, 7, 3), np.float32), r"float32 \(6, 7, 3\)"),
        (np.zeros((7, 6, 3), np.uint8), r"uint8 \(7, 6, 3\)"),  # as many bytes
        (np.zeros((6, 7), np.uint8), r"uint8 \(6, 7\)"),
        (np.zeros((6, 7, 4), np.uint8), r"uint8 \(6, 7, 4\)"),
    ],
    ids=["dtype", "turned", "gray", "alpha"],
)
def test_an_image_of_another_kind_is_refused(rows, name, image, got):
    rows[5][name] = image
    with pytest.raises(ValueError, match=rf"^{name}: expected uint8 \(6, 7, 3\), got {got}$"):
        written(rows)


def test_images_are_looked_at_where_they_lie(rows):
    table = pq.read_table(written(rows, size=100))
    stored = np.frombuffer(table["clean"].chunk(0).buffers()[1], np.uint8)
    for part in (table, table.slice(2), table.slice(1, 4), table.slice(3, 3).slice(1, 1)):
        images = images_of(part, "clean")
        assert np.shares_memory(images, stored)
        assert len(images) == len(part)
    np.testing.assert_array_equal(images_of(table.slice(3, 3).slice(1, 1), "clean"), [rows[4]["clean"]])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4))
def test_images_survive_slices_and_chunks(parts):
    images = np.stack([random_levels(2, 3, seed) for seed in range(7)])
    tiles = [{"image_id": "", "source": "", "clean": image, "height": 2, "width": 3} for image in images]
    table = pq.read_table(written(tiles, row_schema(CLEAN_COLUMNS, 2, 3)))
    joined = pa.concat_tables([table.slice(*part) for part in parts]) if parts else table.slice(7)
    expected = np.concatenate([images[:0], *(images[start : start + count] for start, count in parts)])
    np.testing.assert_array_equal(images_of(joined, "clean"), expected)
    np.testing.assert_array_equal(images_of(table.schema.empty_table(), "clean"), images[:0])


def test_each_column_has_the_shape_that_its_own_field_says():
    """Another's file, whose degraded images are the clean ones on their side."""
    schema = row_schema({"clean": None}, 2, 3)
    field = row_schema({"degraded": None}, 3, 2).field(0)
    table = pa.table([pa.array([bytes(18)], field.type)] * 2, schema=pa.schema([schema.field(0), field]))
    assert [images_of(table, name).shape for name in ("clean", "degraded")] == [(1, 2, 3, 3), (1, 3, 2, 3)]
    assert image_shape(table.schema.field("degraded")) == (3, 2, 3)


def changed(**fields: pa.Field | None) -> pa.Schema:
    """The schema of shards with other fields."""
    return pa.schema([fields.get(field.name, field) for field in SHARD], SHARD.metadata)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (SHARD.with_metadata(None), "rows of version 1, expected 2; version 1 held PNG files"),
        (SHARD.with_metadata({"instruct_ipt.rows": "3"}), "rows of version 3, expected 2; version 1 held PNG files"),
        (row_schema(CLEAN_COLUMNS, 6, 7), r"columns \['image_id', .*, expected \['task', "),
        (SHARD.remove(3), r"columns \['task', 'image_id', 'variant', 'clean', .*, expected \['task', "),
        (changed(seed=pa.field("seed", pa.int32())), "^seed is int32, expected int64$"),
        (
            changed(clean=pa.field("clean", pa.binary())),
            r"degraded is fixed_size_binary\[126\] x 6 x 7 x 3, expected .*; clean is binary, expected fixed_size",
        ),
        (
            changed(degraded=row_schema({"degraded": None}, 7, 6).field(0)),
            r"^degraded is fixed_size_binary\[126\] x 7 x 6 x 3, expected fixed_size_binary\[126\] x 6 x 7 x 3$",
        ),
        (
            changed(clean=SHARD.field("clean").with_metadata({"shape": "[6, 7, 4]"})),
            r"^clean is .* x 6 x 7 x 4, expected fixed_size_binary\[126\] x 6 x 7 x 3$",
        ),
    ],
    ids=["PNG", "later", "others", "fewer", "type", "binary", "turned", "alpha"],
)
def test_rows_of_another_kind_are_refused(schema, reason):
    check_rows(SHARD, SHARD_COLUMNS)
    with pytest.raises(ValueError, match=reason):
        check_rows(schema, SHARD_COLUMNS)


def test_parquet_files_are_those_right_inside_in_name_order(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.parquet", "a.parquet", "c.txt", "inner/d.parquet"):
        (tmp_path / name).touch()
    assert [path.name for path in parquet_files(tmp_path)] == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("folder", [".", "missing"])
def test_a_folder_without_parquet_files_is_an_error(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="expected Parquet files, found none; run the stage that makes them"):
        parquet_files(tmp_path / folder)
