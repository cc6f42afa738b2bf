"""The stream of crops is a function of seed and number; every tile has its turn in every pass."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.data.tiles import open_tiles
from pipelines.denoisers.crops import read_crops
from pipelines.training.stream import Schedule, packed, unpacked

TILES, SIDE = 7, 8


@pytest.fixture
def tiles(tmp_path):
    """A file of tiles; the red of a tile's pixels is its number, green and blue say where the pixel is."""
    place = np.indices((20, 24)).transpose(1, 2, 0)
    rows = [
        {
            "image_id": f"tile{number}", "source": "test", "height": 20, "width": 24,
            "clean": np.concatenate([np.full((20, 24, 1), number), place], 2).astype(np.uint8),
        }
        for number in range(TILES)
    ]  # fmt: skip
    write_rows(tmp_path / "train.parquet", rows, row_schema(CLEAN_COLUMNS, 20, 24), row_group_rows=3)
    return tmp_path / "train.parquet"


def cut_crops(tiles, seed, start, stop, side=SIDE):
    return read_crops(open_tiles(tiles), side, seed, start, stop)["clean"]


def test_every_pass_takes_every_tile_once_in_an_order_of_its_own(tiles):
    crops = cut_crops(tiles, 0, 0, 3 * TILES)
    order = [int(crop[0, 0, 0]) for crop in crops]
    passes = [order[start : start + TILES] for start in range(0, 3 * TILES, TILES)]
    assert all(sorted(each) == list(range(TILES)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1


def test_a_crop_depends_on_seed_and_number_alone(tiles):
    whole = cut_crops(tiles, 0, 0, 20)
    parts = [*cut_crops(tiles, 0, 0, 5), *cut_crops(tiles, 0, 5, 20)]
    np.testing.assert_array_equal(whole, parts)
    assert not np.array_equal(whole, cut_crops(tiles, 1, 0, 20))


def test_crops_are_neighbouring_pixels_turned_and_mirrored(tiles):
    crops = cut_crops(tiles, 0, 0, 100)
    assert crops.shape == (100, 3, SIDE, SIDE)
    assert crops.dtype == np.uint8
    crops = crops.transpose(0, 2, 3, 1).astype(int)
    down, across = np.diff(crops[..., 1:], axis=1), np.diff(crops[..., 1:], axis=2)
    kinds = {(*down[i, 0, 0], *across[i, 0, 0]) for i in range(100)}
    assert len(kinds) == 8  # all turns and mirrors
    assert (np.abs(down).sum(-1) == 1).all()
    assert (np.abs(across).sum(-1) == 1).all()
    assert (np.ptp(crops[..., 0], axis=(1, 2)) == 0).all()  # of one tile
    assert len({tuple(crop.reshape(-1, 3).min(0)[1:]) for crop in crops}) > 30  # places


def test_a_tile_of_the_size_of_the_crop_is_taken_whole(tiles, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    row = {"image_id": "small", "source": "test", "height": SIDE, "width": SIDE, "clean": levels}
    write_rows(tmp_path / "small.parquet", [row], row_schema(CLEAN_COLUMNS, SIDE, SIDE), row_group_rows=1)
    crops = cut_crops(tmp_path / "small.parquet", 0, 0, 60)
    turned = [np.rot90(flipped, turn) for flipped in (levels, levels[::-1]) for turn in range(4)]
    assert {c.transpose(1, 2, 0).tobytes() for c in crops} == {t.tobytes() for t in turned}


def test_what_cannot_be_cut_is_refused(tiles, tmp_path):
    with pytest.raises(ValueError, match="expected images of at least 21 x 21 pixels, got 20 x 24"):
        cut_crops(tiles, 0, 0, 1, side=21)
    column = pq.read_metadata(tiles).row_group(0).column(2)
    content = bytearray(tiles.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    (tmp_path / "bad.parquet").write_bytes(content)
    message = r"bad\.parquet: no clean tiles can be read \(.*; make them anew: `dvc repro -f -s prepare`"
    with pytest.raises(ValueError, match=message):
        cut_crops(tmp_path / "bad.parquet", 0, 0, TILES)
    with pytest.raises(FileNotFoundError, match="make them with `dvc repro prepare`"):
        cut_crops(tmp_path / "none.parquet", 0, 0, 1)


def test_the_stream_packs_them_by_number(tiles):
    schedule = Schedule(steps=9, items_per_step=3, interval=9, segment=27, workers=1)
    table = packed(read_crops(open_tiles(tiles), SIDE, 5, 3, 27), 1, 9, 0)
    assert isinstance(table["clean"].type, pa.FixedShapeTensorType)
    for step, items in zip(range(1, 9), unpacked(table, schedule, 1, 0), strict=True):
        np.testing.assert_array_equal(items["clean"], cut_crops(tiles, 5, 3 * step, 3 * step + 3))
