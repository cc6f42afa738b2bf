"""What crosses a stage border as Parquet: the clean tile row and the shard row, and how images are coded in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType

from ipt.pixels import to_levels

CLEAN_ROW = pa.schema(
    [
        ("image_id", pa.string()),  # unique name of the tile: source, image, scale, position
        ("source", pa.string()),
        ("clean", pa.binary()),  # PNG
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)

SHARD_ROW = pa.schema(
    [
        ("task", pa.string()),
        ("image_id", pa.string()),
        ("variant", pa.int32()),
        ("degraded", pa.binary()),  # PNG
        ("clean", pa.binary()),  # PNG
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("instruction", pa.string()),
        ("severity", pa.string()),  # JSON: what the recipe drew, by transform
        ("seed", pa.int64()),
    ]
)


def encode_image(image: np.ndarray) -> bytes:
    """Encode an RGB image (H, W, 3), uint8 or float32 in [0, 1], as an 8-bit PNG."""
    # Level 1: tiles are noisy, more effort saves few bytes and costs most of the stage's time.
    done, data = cv2.imencode(".png", to_levels(image)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError(f"PNG encoder refused an image of shape {image.shape}")
    return data.tobytes()


def decode_levels(data: bytes) -> np.ndarray:
    """Decode a PNG into uint8 (H, W, 3) RGB; a ValueError says that the bytes are damaged."""
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if levels is None:
        raise ValueError(f"image of {len(data)} bytes cannot be decoded: the shard is damaged; remake it")
    return levels[..., ::-1]


def decode_image(data: bytes) -> np.ndarray:
    """Decode a PNG into float32 (H, W, 3) RGB in [0, 1]; the inverse of `encode_image` up to rounding."""
    return decode_levels(data).astype(np.float32) / 255


def write_rows(target: Path | BinaryIO, rows: Iterable[dict], schema: pa.Schema, row_group_rows: int) -> None:
    """Write rows as one Parquet file, a row group in memory at a time.

    The bytes depend on the rows alone (no date, no statistics of text).
    """
    rows = iter(rows)
    # PNG bytes do not compress further; dictionaries would only copy them.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(target, schema, **options) as writer:
        while group := list(itertools.islice(rows, row_group_rows)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files right inside `folder` in name order; a FileNotFoundError where there is none."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected Parquet files, found none; run the stage that makes them")
    return files


def open_parquet(place: str) -> pq.ParquetFile:
    """The Parquet file at an absolute path or a URI such as s3://bucket/folder/file."""
    filesystem, path = FileSystem.from_uri(place)
    return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True)


def has_folder(place: str) -> bool:
    """Whether the folder of such a file can be seen; not where its storage is away."""
    filesystem, path = FileSystem.from_uri(place)
    try:
        return filesystem.get_file_info(path.rpartition("/")[0]).type == FileType.Directory
    except OSError:
        return False


def read_tiles(path: Path | str, numbers: np.ndarray) -> list[dict]:
    """The rows of a Parquet file with these numbers, rising; only the row groups that hold them are read."""
    file, rows, first = open_tiles(path), [], 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        inside = numbers[(numbers >= first) & (numbers < first + length)] - first
        if len(inside):
            rows += file.read_row_group(group).take(inside).to_pylist()
        first += length
    return rows


def open_tiles(path: Path | str) -> pq.ParquetFile:
    """A file of clean tiles, by path or (text) as `open_parquet`; a FileNotFoundError says which stage makes it."""
    try:
        return open_parquet(str(path.resolve()) if isinstance(path, Path) else path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected clean tiles; make them with `dvc repro prepare`") from error
