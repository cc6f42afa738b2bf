"""Looking at rows: the picture holds their images, the lines say what they are, and other files are refused."""

import dataclasses
import json
import sys

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cluster.storage import Storage
from pipelines.common.manifest import write_manifest
from pipelines.common.params import load_params
from pipelines.data.metrics import psnr
from pipelines.data.rows import CLEAN_COLUMNS, SHARD_COLUMNS, describe, row_schema, rows_of, write_rows
from pipelines.look import GAP, NARROWEST, caption, contact_sheet, main, spread

DRAWN = {"Rain": {"angle": 3.51234, "drops": [1, 2], "kind": "x"}, "Haze": None, "Noise": {"sigma": 5.0}}


def pairs(count: int, side: int = 128) -> list[dict]:
    images = np.random.default_rng(0).integers(0, 256, (count, 2, side, side, 3), np.uint8)
    return [
        {"task": "derain", "image_id": f"cat/{n}", "variant": 0, "degraded": images[n, 0], "clean": images[n, 1],
         "height": side, "width": side, "instruction": "", "severity": json.dumps(DRAWN), "seed": n}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def shard(tmp_path):
    write_rows(tmp_path / "00000.parquet", pairs(9), row_schema(SHARD_COLUMNS, 128, 128), 4)
    return tmp_path / "00000.parquet"


def look(monkeypatch, capsys, *arguments) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["look", *map(str, arguments)])
    main()
    return capsys.readouterr().out.splitlines()


def test_rows_are_spread_evenly_over_the_file(shard, shards):
    numbers, rows = spread(shard, 3)
    assert numbers == [0, 4, 8]
    assert [row["image_id"] for row in rows] == ["cat/0", "cat/4", "cat/8"]
    assert spread(shard, 99)[0] == list(range(9))
    assert spread(shard, 1)[0] == [0]
    of_another = shards / "derain" / "val" / "00000.parquet"
    assert [row["seed"] for row in spread(of_another, 99)[1]] == pq.read_table(of_another)["seed"].to_pylist()


def test_a_file_that_a_manifest_names_is_looked_for_in_the_storage(shard, tmp_path, monkeypatch):
    file = describe("train/00000.parquet", shard.read_bytes())
    Storage(str(tmp_path / "shared")).keep(file.address, shard.read_bytes())
    write_manifest(tmp_path, [file])
    real = load_params()
    there = dataclasses.replace(real, ray=dataclasses.replace(real.ray, storage=str(tmp_path / "shared")))
    monkeypatch.setattr("pipelines.look.load_params", lambda: there)
    assert spread(tmp_path / "train/00000.parquet", 3)[0] == [0, 4, 8]
    with pytest.raises(FileNotFoundError, match=r"00001\.parquet: expected a file of data/shards or data/clean"):
        spread(tmp_path / "train/00001.parquet", 3)


def test_the_caption_says_what_was_drawn():
    (row,) = pairs(1)
    decibels = psnr(row["degraded"].astype(np.float32) / 255, row["clean"].astype(np.float32) / 255)
    assert caption(row) == f"derain cat/0, {decibels:.1f} dB: Rain angle 3.512 drops [1, 2] kind x, Noise sigma 5"
    assert caption(row | {"severity": '{"Haze": null}'}).endswith(" dB: nothing")
    assert caption({"image_id": "cat/0", "source": "cat", "clean": row["clean"]}) == "cat/0"


def test_the_picture_and_a_line_for_each_row(shard, tmp_path, monkeypatch, capsys):
    lines = look(monkeypatch, capsys, shard, "--rows", 5, "--output", tmp_path / "made" / "sheet.png")
    assert lines[-1] == f"look: 5 rows of {shard} in {tmp_path}/made/sheet.png"
    assert [line.split(", ")[0] for line in lines[:-1]] == [f"row {n}: derain cat/{n}" for n in (0, 2, 4, 6, 8)]
    sheet = cv2.imread(str(tmp_path / "made" / "sheet.png"))[..., ::-1]
    np.testing.assert_array_equal(sheet, contact_sheet([pairs(9)[n] for n in (0, 2, 4, 6, 8)]))
    height = sheet.shape[0] // 2
    for place, number in enumerate((0, 2, 4, 6, 8)):
        bottom, left = (place // 4 + 1) * height - GAP, place % 4 * (256 + GAP)
        row, shown = pairs(9)[number], sheet[bottom - 128 : bottom, left : left + 256]
        np.testing.assert_array_equal(shown, np.concatenate([row["degraded"], row["clean"]], axis=1))
        assert sheet[bottom - 150 : bottom - 128, left : left + 200].min() < 128  # something is written above


def test_small_images_are_enlarged_so_that_captions_have_room():
    rows = pairs(2, side=16)
    sheet = contact_sheet(rows)
    assert sheet.shape[1] == 2 * (NARROWEST + GAP)
    bottom = sheet.shape[0] - GAP
    shown = sheet[bottom - 128 : bottom : 8, :128:8]
    np.testing.assert_array_equal(shown, rows[0]["degraded"])


def test_clean_tiles_are_shown_too(tmp_path, monkeypatch, capsys):
    tiles = [
        {"image_id": row["image_id"], "source": "cat", "clean": row["clean"], "height": 128, "width": 128}
        for row in pairs(3)
    ]
    write_rows(tmp_path / "val.parquet", tiles, row_schema(CLEAN_COLUMNS, 128, 128), 2)
    monkeypatch.chdir(tmp_path)
    lines = look(monkeypatch, capsys, "val.parquet")
    assert lines == ["row 0: cat/0", "row 1: cat/1", "row 2: cat/2", "look: 3 rows of val.parquet in build/look.png"]
    shown = cv2.imread("build/look.png")[-256 - GAP : -GAP, :256, ::-1]
    np.testing.assert_array_equal(shown[::2, ::2], tiles[0]["clean"])


def flip(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


@pytest.mark.parametrize("change", [lambda content: b"no parquet", lambda content: content[:-100], flip])
def test_a_damaged_file_is_told_with_the_remedy(shard, change):
    shard.write_bytes(change(shard.read_bytes()))
    message = (
        rf"^{shard}: rows cannot be shown \(.*remake it: `dvc repro -f -s synthesize@TASK`, or `dvc repro -f -s pr"
    )
    with pytest.raises(ValueError, match=message):
        spread(shard, 99)


def test_other_files_are_told(shard, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="expected a file of data/shards or data/clean, found none"):
        spread(tmp_path, 3)
    table = pq.read_table(shard)
    pq.write_table(table.replace_schema_metadata(None), shard)
    with pytest.raises(ValueError, match=r"rows of version 1, expected 2; version 1 held PNG files\); remake it"):
        spread(shard, 3)
    pq.write_table(pa.table({"a": [1]}), shard)
    with pytest.raises(ValueError, match=r"rows cannot be shown \(columns \['a'\], expected \['task', "):
        spread(shard, 3)
    write_rows(shard, rows_of(table.slice(0, 0)), row_schema(SHARD_COLUMNS, 128, 128), 3)
    for arguments in ([], ["--rows", "0"], ["--rows", "-3"]):
        monkeypatch.setattr(sys, "argv", ["look", str(shard), *arguments])
        with pytest.raises(ValueError, match=r"expected rows to show, got none of -?\d+ asked for"):
            main()
