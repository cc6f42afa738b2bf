"""What crosses a stage border as Parquet: rows of clean tiles and of degraded pairs.

Images are raw uint8, rows by columns by RGB, in columns of fixed-size binary whose field says the shape. pyarrow's own
fixed-shape tensors would be Parquet lists of 32-bit numbers: 14 times as slow to read (docs/cluster.md). With plain
pandas: `np.frombuffer(row.clean, np.uint8).reshape(row.height, row.width, 3)`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

from pipelines.common.manifest import DataFile, Seal

Result = TypeVar("Result")

_TAIL = 2**16  # bytes at a file's end that are read at once, as Arrow does: most footers are in there

IMAGES = ("degraded", "clean")
VERSION, CURRENT = b"instruct_ipt.rows", b"2"  # in the schema's metadata; 1, which held PNG files, did not say
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
    return pa.schema(fields, {VERSION: CURRENT})


def check_rows(schema: pa.Schema, columns: dict[str, pa.DataType | None]) -> None:
    """Raise ValueError unless a file's `schema` is `row_schema` of these columns for some size."""
    if schema.names != list(columns):
        raise ValueError(f"columns {schema.names}, expected {list(columns)}")
    version = (schema.metadata or {}).get(VERSION, b"1")
    if version != CURRENT:
        raise ValueError(f"rows of version {version.decode()}, expected {CURRENT.decode()}; version 1 held PNG files")
    height, width = (*image_shape(schema.field("clean")), 0, 0)[:2]
    both = zip(schema, row_schema(columns, height, width), strict=True)
    wrong = [f"{its.name} is {_told(its)}, expected {_told(ours)}" for its, ours in both if _told(its) != _told(ours)]
    if wrong:
        raise ValueError("; ".join(wrong))


def image_shape(field: pa.Field) -> tuple[int, ...]:
    """Height, width and 3 of the images in a column, from its field; empty where that does not say."""
    return tuple(json.loads((field.metadata or {}).get(SHAPE, b"[]")))


def _told(field: pa.Field) -> str:
    return " x ".join([str(field.type), *(str(length) for length in image_shape(field))])


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column, copied only where they lie apart (`combine_chunks` copies them always)."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def images_of(table: pa.Table, name: str) -> np.ndarray:
    """The images of a column, uint8 (N, H, W, 3), not to be written to; nothing is copied that lies together."""
    column = one_array(table[name])
    size = column.type.byte_width
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    images = data[column.offset * size : (column.offset + len(column)) * size]
    return images.reshape(-1, *image_shape(table.schema.field(name)))


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table as `write_rows` takes them."""
    images = [name for name in table.column_names if name in IMAGES]
    rows = table.drop_columns(images).to_pylist()
    for name in images:
        for row, image in zip(rows, images_of(table, name), strict=True):
            row[name] = image
    return rows


def read_rows(file: pq.ParquetFile, numbers: np.ndarray) -> list[dict[str, Any]]:
    """The rows of a file with these numbers, rising; only the row groups that hold them are read."""
    rows, first = [], 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        inside = numbers[(numbers >= first) & (numbers < first + length)] - first
        if len(inside):
            rows += rows_of(file.read_row_group(group).take(inside))
        first += length
    return rows


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
    columns = []
    for field in schema:
        values, shape = [row[field.name] for row in rows], image_shape(field)
        if not shape:
            columns.append(pa.array(values, field.type))
            continue
        for value in values:
            if value.dtype != np.uint8 or value.shape != shape:
                raise ValueError(f"{field.name}: expected uint8 {shape}, got {value.dtype} {value.shape}")
        data = pa.py_buffer(np.ascontiguousarray(np.stack(values)))  # `stack` keeps the order in memory
        columns.append(pa.FixedSizeBinaryArray.from_buffers(field.type, len(values), [None, data]))
    return pa.Table.from_arrays(columns, schema=schema)


def describe(name: str, content: bytes) -> DataFile:
    """What a manifest says of a Parquet file of `write_rows`, given whole."""
    footer = pq.read_metadata(pa.BufferReader(content))
    schema = footer.schema.to_arrow_schema()
    height, width = image_shape(schema.field("clean"))[:2]
    return DataFile(
        name=name,
        rows=tuple(footer.row_group(number).num_rows for number in range(footer.num_row_groups)),
        shape=(height, width),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        footer=footer_hash(content),
    )


def footer_hash(tail: bytes) -> str:
    """The hash of the footer of a Parquet file, of which at least the footer is given.

    Which rows and pages there are, where and how long: another file has another one, though the content of a page is
    not in it.
    """
    length = int.from_bytes(tail[-8:-4], "little") + 8
    return hashlib.sha256(tail[-length:]).hexdigest()[:16]


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files right inside `folder` in name order; a FileNotFoundError where there is none."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected Parquet files, found none; run the stage that makes them")
    return files


def open_parquet(place: str, seal: Seal | None = None) -> pq.ParquetFile:
    """The Parquet file at an absolute path or a URI such as s3://bucket/folder/file.

    Raises ValueError where it is not as long as its `seal` says, or has another footer.
    """
    filesystem, path = FileSystem.from_uri(place)
    if seal is None:
        return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True, page_checksum_verification=True)
    source = filesystem.open_input_file(path)
    footer = _sealed_footer(source, seal)  # read once, as it would be without a seal
    return pq.ParquetFile(source, metadata=footer, pre_buffer=True, page_checksum_verification=True)


def _sealed_footer(source: pa.NativeFile, seal: Seal) -> pq.FileMetaData:
    size = source.size()
    if size != seal.bytes:
        raise ValueError(f"{size} bytes, expected {seal.bytes} as its manifest says")
    tail = source.read_at(min(size, _TAIL), max(size - _TAIL, 0))
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = source.read_at(min(size, length), max(size - length, 0))
    if footer_hash(tail) != seal.footer:
        raise ValueError(f"another file than its manifest names: footer {footer_hash(tail)}, expected {seal.footer}")
    return pq.read_metadata(pa.BufferReader(tail))


def read_whole(folder: str, read: Callable[[], Result], damaged: Callable[[object], Exception]) -> Result:
    """What `read` makes of a file below the place `folder`; raises `damaged`, with the reason, where it cannot be read.

    Where the folder cannot be seen either, the storage is away: then an OSError, which can be waited for.
    """
    for last in (False, True):
        try:
            return read()
        except (pa.ArrowException, OSError, ValueError) as error:
            if not is_folder(folder):
                if isinstance(error, FileNotFoundError):  # or has lost all
                    raise FileNotFoundError(f"{damaged(error)}, where {folder} is not away") from error
                raise
            if last:  # not the first time: the storage may just have come back
                raise damaged(error) from error
    raise AssertionError("unreachable")


def is_folder(place: str) -> bool:
    """Whether the folder can be seen; not where its storage is away."""
    filesystem, path = FileSystem.from_uri(place)
    try:
        return filesystem.get_file_info(path).type == FileType.Directory
    except OSError:
        return False
