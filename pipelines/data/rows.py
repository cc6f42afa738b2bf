"""What crosses a stage border as Parquet: rows of clean tiles and of degraded pairs.

Images are raw uint8, rows by columns by RGB, in columns of fixed-size binary whose field says the shape. pyarrow's own
fixed-shape tensors would be Parquet lists of 32-bit numbers: 14 times as slow to read (docs/cluster.md). With plain
pandas: `np.frombuffer(row.clean, np.uint8).reshape(row.height, row.width, 3)`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

IMAGES = ("degraded", "clean")
VERSION = {b"instruct_ipt.rows": b"2"}  # 1 held PNG files
SHAPE = b"shape"  # of an image, JSON, in its field's metadata

CLEAN_COLUMNS: dict[str, pa.DataType | None] = {
    "image_id": pa.string(),  # unique name of the tile: source, image, scale, position
    "source": pa.string(),
    "clean": None,
    "height": pa.int32(),
    "width": pa.int32(),
}
SHARD_COLUMNS: dict[str, pa.DataType | None] = {
    "task": pa.string(),
    "image_id": pa.string(),
    "variant": pa.int32(),
    "degraded": None,
    "clean": None,
    "height": pa.int32(),
    "width": pa.int32(),
    "instruction": pa.string(),
    "severity": pa.string(),  # JSON: what the recipe drew, by transform
    "seed": pa.int64(),
}


def row_schema(columns: dict[str, pa.DataType | None], height: int, width: int) -> pa.Schema:
    """The schema of rows with these columns; those without a type are images of `height` x `width` pixels."""
    shape = {SHAPE: json.dumps([height, width, 3]).encode()}
    fields = [
        pa.field(name, kind) if kind else pa.field(name, pa.binary(height * width * 3), metadata=shape)
        for name, kind in columns.items()
    ]
    return pa.schema(fields, VERSION)


def check_rows(schema: pa.Schema, columns: dict[str, pa.DataType | None]) -> None:
    """Raise ValueError unless a file's `schema` is `row_schema` of these columns for some size."""
    if schema.names == list(columns) and (schema.metadata or {}).get(b"instruct_ipt.rows") != b"2":
        raise ValueError("its rows are of an earlier version of this code, which held PNG files")
    if schema.names != list(columns):
        raise ValueError(f"columns {schema.names}, expected {list(columns)}")
    height, width = image_shape(schema)[:2]
    expected = row_schema(columns, height, width)
    wrong = [f"{mine.name} is {its.type}, expected {mine.type}" for mine, its in zip(expected, schema, strict=True)
             if mine.type != its.type]  # fmt: skip
    if wrong:
        raise ValueError("; ".join(wrong))


def image_shape(schema: pa.Schema) -> tuple[int, int, int]:
    """Height, width and 3, of the images in a file with this schema."""
    height, width, channels = json.loads((schema.field("clean").metadata or {}).get(SHAPE, b"[0, 0, 3]"))
    return height, width, channels


def images_of(table: pa.Table, name: str) -> np.ndarray:
    """The images of a column, uint8 (N, H, W, 3), not to be written to; nothing is copied that lies together."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # without a row
        column = pa.array([], column.type)
    shape = image_shape(table.schema)
    size = column.type.byte_width
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return data[column.offset * size : (column.offset + len(column)) * size].reshape(-1, *shape)


def write_rows(target: Path | BinaryIO, rows: Iterable[dict[str, Any]], schema: pa.Schema, row_group_rows: int) -> None:
    """Write rows as one Parquet file, a row group in memory at once; images are uint8 (H, W, 3) as `schema` says.

    The bytes depend on the rows alone (no date, no statistics of text). Pages carry checksums.
    """
    rows = iter(rows)
    # LZ4 reads in a third of zstd's time and takes 7 % more room; dictionaries would only copy the images.
    options = {"compression": "lz4", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    with pq.ParquetWriter(target, schema, **options) as writer:
        while group := list(itertools.islice(rows, row_group_rows)):
            writer.write_table(_table(group, schema))


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    shape, columns = image_shape(schema), []
    for field in schema:
        values = [row[field.name] for row in rows]
        if field.name not in IMAGES:
            columns.append(pa.array(values, field.type))
            continue
        for value in values:
            if value.dtype != np.uint8 or value.shape != shape:
                raise ValueError(f"{field.name}: expected uint8 {shape}, got {value.dtype} {value.shape}")
        data = pa.py_buffer(np.stack(values))
        columns.append(pa.FixedSizeBinaryArray.from_buffers(field.type, len(values), [None, data]))
    return pa.Table.from_arrays(columns, schema=schema)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files right inside `folder` in name order; a FileNotFoundError where there is none."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected Parquet files, found none; run the stage that makes them")
    return files


def open_parquet(place: str) -> pq.ParquetFile:
    """The Parquet file at an absolute path or a URI such as s3://bucket/folder/file."""
    filesystem, path = FileSystem.from_uri(place)
    return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True, page_checksum_verification=True)


def has_folder(place: str) -> bool:
    """Whether the folder of such a file can be seen; not where its storage is away."""
    filesystem, path = FileSystem.from_uri(place)
    try:
        return filesystem.get_file_info(path.rpartition("/")[0]).type == FileType.Directory
    except OSError:
        return False
