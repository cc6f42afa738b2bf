"""The stream of crops is a function of seed and number; every tile has its turn in every pass."""

import numpy as np
import pytest

from pipelines.data.rows import CLEAN_ROW, encode_image, write_rows
from pipelines.denoisers.crops import cut_crops, read_crops

TILES, SIDE = 7, 8


@pytest.fixture
def tiles(tmp_path):
    """A file of tiles; the red of a tile's pixels is its number, green and blue say where the pixel is."""
    place = np.indices((20, 24)).transpose(1, 2, 0)
    rows = [
        {
            "image_id": f"tile{number}", "source": "test", "height": 20, "width": 24,
            "clean": encode_image(np.concatenate([np.full((20, 24, 1), number), place], 2).astype(np.uint8)),
        }
        for number in range(TILES)
    ]  # fmt: skip
    write_rows(tmp_path / "train.parquet", rows, CLEAN_ROW, row_group_rows=3)
    return tmp_path / "train.parquet"


def test_every_pass_takes_every_tile_once_in_an_order_of_its_own(tiles):
    crops = cut_crops(tiles, SIDE, 0, range(3 * TILES))
    order = [int(crop[0, 0, 0]) for crop in crops]
    passes = [order[start : start + TILES] for start in range(0, 3 * TILES, TILES)]
    assert all(sorted(each) == list(range(TILES)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1


def test_a_crop_depends_on_seed_and_number_alone(tiles):
    whole = cut_crops(tiles, SIDE, 0, range(20))
    parts = cut_crops(tiles, SIDE, 0, range(5)) + cut_crops(tiles, SIDE, 0, range(5, 20))
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    other = cut_crops(tiles, SIDE, 1, range(20))
    assert not all(np.array_equal(a, b) for a, b in zip(whole, other, strict=True))


def test_crops_are_neighbouring_pixels_turned_and_mirrored(tiles):
    crops = np.stack(cut_crops(tiles, SIDE, 0, range(100))).astype(int)
    assert crops.shape == (100, SIDE, SIDE, 3)
    down, across = np.diff(crops[..., 1:], axis=1), np.diff(crops[..., 1:], axis=2)
    kinds = {(*down[i, 0, 0], *across[i, 0, 0]) for i in range(100)}
    assert len(kinds) == 8  # all turns and mirrors
    assert (np.abs(down).sum(-1) == 1).all()
    assert (np.abs(across).sum(-1) == 1).all()
    assert len({tuple(crop.reshape(-1, 3).min(0)[1:]) for crop in crops}) > 30  # places


def test_what_cannot_be_cut_is_refused(tiles, tmp_path):
    with pytest.raises(ValueError, match="expected tiles of at least 21 x 21 pixels, got 20 x 24"):
        cut_crops(tiles, 21, 0, range(1))
    row = {"image_id": "bad", "source": "test", "height": 20, "width": 20, "clean": b"no picture"}
    write_rows(tmp_path / "bad.parquet", [row], CLEAN_ROW, row_group_rows=1)
    with pytest.raises(ValueError, match="tile bad is damaged; remake it: `dvc repro -f -s prepare`"):
        cut_crops(tmp_path / "bad.parquet", SIDE, 0, range(1))
    with pytest.raises(FileNotFoundError, match="make them with `dvc repro prepare`"):
        read_crops(tmp_path / "none.parquet", SIDE, 0, 0, 1)


def test_a_table_holds_the_crops_by_number(tiles):
    table = read_crops(str(tiles), SIDE, 5, 3, 30)
    assert table["number"].to_pylist() == list(range(3, 30))
    assert table["pixels"].to_pylist() == [crop.tobytes() for crop in cut_crops(tiles, SIDE, 5, range(3, 30))]
