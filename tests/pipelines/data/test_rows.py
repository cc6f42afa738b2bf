"""Rows that cross stage borders: exact images, repeatable bytes, readable by anybody."""

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.rows import (
    CLEAN_ROW,
    SHARD_ROW,
    decode_image,
    decode_levels,
    encode_image,
    parquet_files,
    write_rows,
)


def random_levels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_8_bit_images_come_back_exactly(height, width, seed):
    levels = random_levels(height, width, seed)
    data = encode_image(levels.astype(np.float32) / 255)
    np.testing.assert_array_equal(decode_levels(data), levels)
    image = decode_image(data)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, levels.astype(np.float32) / 255)


def test_other_images_come_back_up_to_rounding_and_clipping():
    image = np.random.default_rng(0).random((9, 7, 3), np.float32) * 1.4 - 0.2
    assert np.abs(decode_image(encode_image(image)) - np.clip(image, 0, 1)).max() <= 0.5 / 255 + 1e-6


def test_the_file_is_an_ordinary_rgb_png():
    levels = random_levels(5, 8)
    data = encode_image(levels / np.float32(255))
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), -1)[..., ::-1], levels)


def damaged_pngs():
    data = encode_image(random_levels(32, 32) / np.float32(255))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    return [
        b"",
        b"\x00" * 50,
        data[:1],
        data[:40],
        data[: len(data) // 2],
        data[:-60],
        bytes(flipped),
    ]


@pytest.mark.parametrize("data", damaged_pngs(), ids=lambda data: f"{len(data)} bytes")
@pytest.mark.parametrize("decode", [decode_levels, decode_image])
def test_damaged_bytes_are_refused(data, decode):
    with pytest.raises(
        ValueError,
        match=f"image of {len(data)} bytes cannot be decoded: the shard is damaged; remake it",
    ):
        decode(data)


@pytest.fixture
def rows():
    return [
        {
            "task": "derain", "image_id": f"builtin/cat@1.0/{number}", "variant": number % 2,
            "degraded": encode_image(random_levels(6, 7, number) / np.float32(255)),
            "clean": encode_image(random_levels(6, 7, 99 + number) / np.float32(255)),
            "height": 6, "width": 7, "instruction": "remove the räin",
            "severity": '{"Rain": {"angle": 3.5}}', "seed": 2**55 + number,
        }
        for number in range(7)
    ]  # fmt: skip


def test_rows_come_back_also_with_plain_pandas(tmp_path, rows):
    write_rows(tmp_path / "a.parquet", rows, SHARD_ROW, row_group_rows=3)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows
    assert pq.read_schema(tmp_path / "a.parquet").equals(SHARD_ROW)
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns) == SHARD_ROW.names
    assert table.to_dict("records") == rows
    np.testing.assert_array_equal(decode_levels(table["clean"][2]), random_levels(6, 7, 101))


def test_clean_rows_come_back(tmp_path):
    row = {"image_id": "a", "source": "builtin", "clean": b"png", "height": 3, "width": 4}
    write_rows(tmp_path / "a.parquet", [row, row], CLEAN_ROW, row_group_rows=8)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [row, row]


@pytest.mark.parametrize(("size", "groups"), [(3, [3, 3, 1]), (7, [7]), (100, [7]), (1, [1] * 7)])
def test_row_groups_have_the_size_asked_for(tmp_path, rows, size, groups):
    write_rows(tmp_path / "a.parquet", rows, SHARD_ROW, size)
    footer = pq.read_metadata(tmp_path / "a.parquet")
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == groups


def test_bytes_depend_on_the_rows_alone(tmp_path, rows):
    write_rows(tmp_path / "a.parquet", rows, SHARD_ROW, 3)
    reordered = [dict(reversed(row.items())) for row in rows]
    write_rows(tmp_path / "another-name.parquet", reordered, SHARD_ROW, 3)
    first = (tmp_path / "a.parquet").read_bytes()
    assert (tmp_path / "another-name.parquet").read_bytes() == first
    rows[4]["seed"] += 1
    write_rows(tmp_path / "a.parquet", rows, SHARD_ROW, 3)
    assert (tmp_path / "a.parquet").read_bytes() != first


def test_parquet_files_are_those_right_inside_in_name_order(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.parquet", "a.parquet", "c.txt", "inner/d.parquet"):
        (tmp_path / name).touch()
    assert [path.name for path in parquet_files(tmp_path)] == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("folder", [".", "missing"])
def test_a_folder_without_parquet_files_is_an_error(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="expected Parquet files, found none; run the stage that makes them"):
        parquet_files(tmp_path / folder)
