"""Rows of a shard, or of a file of clean tiles, as one picture: degraded beside clean, with what was drawn for them."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ipt.files import replace_file
from ipt.pixels import to_unit
from pipelines.cluster.storage import Storage
from pipelines.common.manifest import Seal, has_manifest, read_manifest
from pipelines.common.params import load_params
from pipelines.common.stage import command, run
from pipelines.data.metrics import psnr
from pipelines.data.png import encode_png
from pipelines.data.rows import CLEAN_COLUMNS, IMAGES, SHARD_COLUMNS, check_rows, open_parquet, read_rows

ACROSS, GAP, LINE, LETTER = 4, 6, 13, 6  # rows side by side; pixels: between them, of a line of text, of a letter
NARROWEST = 256  # pixels of a row's images, enlarged where they are less: room for the caption
REMEDY = "remake it: `dvc repro -f -s synthesize@TASK`, or `dvc repro -f -s prepare` where it holds clean tiles"


def spread(path: Path, count: int) -> tuple[list[int], list[dict[str, Any]]]:
    """The numbers of up to `count` rows, spread evenly over the file, and the rows. Raises ValueError for another."""
    place, seal = _place(path)
    try:
        file = open_parquet(place, seal)
        is_clean, total = file.schema_arrow.names == list(CLEAN_COLUMNS), file.metadata.num_rows
        check_rows(file.schema_arrow, CLEAN_COLUMNS if is_clean else SHARD_COLUMNS)
        numbers = np.linspace(0, max(total - 1, 0), max(min(count, total), 0)).round().astype(int)
        return numbers.tolist(), read_rows(file, numbers)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: rows cannot be shown ({error}); {REMEDY}") from error


def _place(path: Path) -> tuple[str, Seal | None]:
    """Where a file is read: itself, or what a manifest above it names so; FileNotFoundError where neither is."""
    if path.is_file():
        return str(path.resolve()), None
    data = path.parent.parent
    if has_manifest(data):
        for file in read_manifest(data):
            if file.name == f"{path.parent.name}/{path.name}":
                storage = Storage(load_params().ray.storage).here(data)
                return f"{storage}/{file.address}", file.seal(data)
    raise FileNotFoundError(f"{path}: expected a file of data/shards or data/clean, found none")


def caption(row: dict[str, Any]) -> str:
    """Task, image, PSNR and what the recipe drew, in words; of a clean tile its name."""
    if "severity" not in row:
        return f"{row['image_id']}"
    steps = [
        " ".join([step, *(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())])
        for step, numbers in json.loads(row["severity"]).items()
        if numbers is not None  # skipped by its probability
    ]
    near = psnr(*(to_unit(row[name]) for name in IMAGES))
    return f"{row['task']} {row['image_id']}, {near:.1f} dB: {', '.join(steps) or 'nothing'}"


def contact_sheet(rows: list[dict[str, Any]]) -> np.ndarray:
    """The images of the rows under their captions, uint8 (H, W, 3)."""
    cells = [np.concatenate([row[name] for name in IMAGES if name in row], axis=1) for row in rows]
    scale = -(-NARROWEST // cells[0].shape[1])
    height, width = (length * scale for length in cells[0].shape[:2])
    captions = [textwrap.wrap(caption(row), width // LETTER) for row in rows]
    top, across = max(map(len, captions)) * LINE + GAP, min(ACROSS, len(rows))
    sheet = np.full((-(-len(rows) // across) * (top + height + GAP), across * (width + GAP), 3), 255, np.uint8)
    for number, (cell, lines) in enumerate(zip(cells, captions, strict=True)):
        y, x = number // across * (top + height + GAP), number % across * (width + GAP)
        sheet[y + top : y + top + height, x : x + width] = cell.repeat(scale, axis=0).repeat(scale, axis=1)
        for line, text in enumerate(lines, 1):
            cv2.putText(sheet, text, (x, y + line * LINE), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def main() -> None:
    """Draw the picture and print a line a row."""
    parser = argparse.ArgumentParser(prog=command(), description=__doc__)
    parser.add_argument("shard", type=Path, help="a Parquet file of data/shards or data/clean")
    parser.add_argument("--rows", type=int, default=12, help="how many, spread evenly over the file (default 12)")
    parser.add_argument("--output", type=Path, default=Path("build/look.png"), help="default build/look.png")
    given = parser.parse_args()
    numbers, rows = spread(given.shard, given.rows)
    if not rows:
        raise ValueError(f"{given.shard}: expected rows to show, got none of {given.rows} asked for")
    with replace_file(given.output) as temporary:
        temporary.write_bytes(encode_png(contact_sheet(rows)))
    for number, row in zip(numbers, rows, strict=True):
        print(f"row {number}: {caption(row)}")
    print(f"look: {len(rows)} rows of {given.shard} in {given.output}")


if __name__ == "__main__":
    run(main)
