"""The prepare stage: no leak from val to train, no duplicates, same bytes twice, bad input told."""

import contextlib
import csv
import itertools
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ipt.pixels import to_unit
from pipelines import prepare as stage
from pipelines.common.params import Builtin, DeadLeaves, Folder, Prepare, Source
from pipelines.common.processes import processes
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, rows_of
from pipelines.pictures import cutting, duplicates, mixing
from pipelines.pictures.dead_leaves import draw_dead_leaves
from pipelines.pictures.duplicates import Seen, perceptual_hash
from pipelines.pictures.selection import split_pictures
from pipelines.pictures.sources import Picture, SourceError
from pipelines.pictures.tiles import count_tiles, cut_tiles, starts
from pipelines.prepare import prepare

LEAVES = Source(None, None, DeadLeaves(5, 64))


def folder(path, *scales):
    return Source(Folder(str(path), scales or (1.0,)), None, None)


@pytest.fixture
def settings_of():
    base = Prepare(
        sources=(LEAVES,),
        tile=32,
        stride=32,
        val_share=0.2,
        flat_std=3.0,
        max_flat_share=0.05,
        duplicate_bits=3,
        max_bad_share=0.5,
        row_group_rows=8,
    )
    return lambda *sources, **changes: replace(base, sources=sources or base.sources, **changes)


@pytest.fixture
def photos(tmp_path):
    """A folder of 6 different good pictures, 64 x 64."""
    root = tmp_path / "photos"
    root.mkdir()
    for index in range(6):
        save(root / f"{index}.png", picture(index))
    return root


def picture(seed, size=64):
    return draw_dead_leaves(np.random.default_rng((99, seed)), size)


def save(path, image, **options):
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path, **options)


def rows(target, part):
    return rows_of(pq.read_table(target / f"{part}.parquet"))


def pictures_of(target, part):
    return {row["image_id"].split("@")[0] for row in rows(target, part)}


def quarantine(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_clean_tiles_of_the_pictures(tmp_path, photos, settings_of):
    report = prepare(settings_of(folder(photos), LEAVES), 0, tmp_path / "clean")
    assert sorted(p.name for p in (tmp_path / "clean").iterdir()) == [
        "quarantine.csv",
        "train.parquet",
        "val.parquet",
    ]
    seen = []
    for part in ("train", "val"):
        table = pq.read_table(tmp_path / "clean" / f"{part}.parquet")
        assert table.schema.equals(row_schema(CLEAN_COLUMNS, 32, 32), check_metadata=True)
        for row in rows_of(table):
            seen.append(row["image_id"])
            assert row["clean"].shape == (row["height"], row["width"], 3) == (32, 32, 3)
    assert len(seen) == len(set(seen)) == report["tiles"] > 20
    row = next(r for r in rows(tmp_path / "clean", "train") if r["source"] == str(photos))
    name, place = row["image_id"].removeprefix(f"{photos}/").split("@1.0/")
    x, y = map(int, place.removeprefix("x").split("y"))
    whole = np.asarray(Image.open(photos / name))
    expected = whole[y : y + 32, x : x + 32]
    np.testing.assert_array_equal(row["clean"], expected)


def test_no_picture_is_on_both_sides_and_every_source_is_on_each(tmp_path, photos, settings_of):
    for seed in range(3):
        report = prepare(settings_of(folder(photos, 1.0, 0.5), LEAVES), seed, tmp_path / "clean")
        train, val = (pictures_of(tmp_path / "clean", part) for part in ("train", "val"))
        assert not train & val
        for label in (str(photos), "dead_leaves"):
            assert report["sources"][label]["train"]["images"] == 5 - (label == "dead_leaves")
            assert report["sources"][label]["val"]["images"] == 1
            assert any(name.startswith(label) for name in val)


def test_same_params_give_same_bytes_also_over_processes(tmp_path, photos, settings_of, monkeypatch):
    chosen = settings_of(folder(photos, 1.0, 0.75), LEAVES)
    prepare(chosen, 0, tmp_path / "one")
    prepare(chosen, 0, tmp_path / "two")
    prepare(chosen, 1, tmp_path / "other")
    with processes(2, each=1) as pool:
        monkeypatch.setattr(stage, "processes", lambda items: contextlib.nullcontext(pool))
        prepare(chosen, 0, tmp_path / "many")
    for name in ("train.parquet", "val.parquet", "quarantine.csv"):
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes()
        assert first == (tmp_path / "many" / name).read_bytes()
    assert rows(tmp_path / "one", "train") != rows(tmp_path / "other", "train")


def test_tiles_of_all_sources_are_mixed(tmp_path, photos, settings_of):
    prepare(settings_of(folder(photos), LEAVES), 0, tmp_path / "clean")
    sources = [row["source"] for row in rows(tmp_path / "clean", "train")]
    changes = sum(a != b for a, b in itertools.pairwise(sources))
    assert changes > len(sources) / 5


def test_mixing_holds_only_its_buffer_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(mixing, "_SHUFFLE_TILES", 10)
    taken = []
    mixed = mixing.mixed((taken.append(i) or i for i in range(100)), np.random.default_rng(0))
    first = next(mixed)
    assert len(taken) == 11
    result = [first, *mixed]
    assert sorted(result) == list(range(100))
    assert result != list(range(100))


def test_copies_resized_or_encoded_anew_are_dropped(tmp_path, photos, settings_of):
    save(photos / "0 again.jpg", picture(0), quality=80)
    large = Image.fromarray(np.rint(picture(1) * 255).astype(np.uint8)).resize((160, 160))
    large.save(photos / "1 large.png")
    report = prepare(settings_of(folder(photos), val_share=0.5), 0, tmp_path / "clean")
    assert report["duplicate_images_dropped"] == 2
    assert report["images"] == 6


def test_one_picture_in_two_sources_is_used_once(tmp_path, photos, settings_of):
    other = tmp_path / "other"
    other.mkdir()
    for index in (0, 7, 8):
        save(other / f"{index}.png", picture(index))
    report = prepare(settings_of(folder(photos), folder(other)), 0, tmp_path / "clean")
    assert report["duplicate_images_dropped"] == 1
    names = pictures_of(tmp_path / "clean", "train") | pictures_of(tmp_path / "clean", "val")
    assert f"{other}/0.png" not in names


def test_repeated_tiles_are_dropped(tmp_path, photos, settings_of):
    save(photos / "twice.png", np.tile(picture(9)[:32, :32], (4, 4, 1)))
    report = prepare(settings_of(folder(photos)), 0, tmp_path / "clean")
    assert report["duplicate_tiles_dropped"] == 15


def test_flat_tiles_are_limited(tmp_path, photos, settings_of):
    for index in range(3):
        # Different faint pictures: flat, but no duplicates of one another.
        save(photos / f"flat {index}.png", 0.5 + 0.01 * (picture(20 + index, 96) - 0.5))
    for share in (0.0, 0.2):
        chosen = settings_of(folder(photos), max_flat_share=share)
        report = prepare(chosen, 0, tmp_path / "clean")
        assert report["flat_dropped"] > 10
        for part in ("train", "val"):
            tiles = [to_unit(row["clean"]) for row in rows(tmp_path / "clean", part)]
            flat = sum((t @ (0.299, 0.587, 0.114)).std() * 255 < 3 for t in tiles)
            assert flat <= share * len(tiles)


def test_good_files_of_every_kind_stay_and_bad_ones_are_quarantined(tmp_path, photos, settings_of):
    levels = np.rint(picture(30) * 255).astype(np.uint8)
    Image.fromarray(levels[..., 0].astype(np.uint16) << 8).save(photos / "deep.png")
    Image.fromarray(np.rint(picture(31) * 255).astype(np.uint8)[..., 0]).save(photos / "gray.png")
    save(photos / "alpha.png", np.dstack([picture(32), np.full((64, 64), 0.5)]))
    save(photos / "one.png", np.ones((1, 1, 3)))
    save(photos / "thin.png", np.ones((31, 400, 3)))
    save(photos / "cut.jpg", picture(33))
    whole = (photos / "cut.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "fake.tif").write_text("not an image")
    report = prepare(settings_of(folder(photos, 1.0, 0.5)), 0, tmp_path / "clean")
    assert report["images"] == 9
    assert report["quarantined"] == 4
    used = pictures_of(tmp_path / "clean", "train") | pictures_of(tmp_path / "clean", "val")
    assert {f"{photos}/{name}.png" for name in ("deep", "gray", "alpha")} <= used
    reasons = {row["path"]: row["reason"] for row in quarantine(tmp_path / "clean/quarantine.csv")}
    assert set(reasons) == {str(photos / n) for n in ("one.png", "thin.png", "cut.jpg", "fake.tif")}
    assert "1 x 1 pixels: smaller than a tile of 32" in reasons[str(photos / "one.png")]
    assert "400 x 31 pixels" in reasons[str(photos / "thin.png")]
    assert "truncated" in reasons[str(photos / "cut.jpg")]


def test_quarantine_has_only_a_header_when_nothing_is_bad(tmp_path, settings_of):
    prepare(settings_of(), 0, tmp_path / "clean")
    assert (tmp_path / "clean" / "quarantine.csv").read_text() == "path,reason\n"


def test_too_many_bad_files_are_an_error_that_names_the_report(tmp_path, photos, settings_of):
    prepare(settings_of(folder(photos)), 0, tmp_path / "clean")
    before = (tmp_path / "clean" / "train.parquet").read_bytes()
    (photos / "bad.jpg").write_text("bad")
    with pytest.raises(SourceError, match=r"1 of 7 .* 0.1 .*clean.quarantine.csv"):
        prepare(settings_of(folder(photos), max_bad_share=0.1), 0, tmp_path / "clean")
    listed = quarantine(tmp_path / "clean.quarantine.csv")
    assert [row["path"] for row in listed] == [str(photos / "bad.jpg")]
    assert (tmp_path / "clean" / "train.parquet").read_bytes() == before
    prepare(settings_of(folder(photos), max_bad_share=0.2), 0, tmp_path / "clean")
    assert not (tmp_path / "clean.quarantine.csv").exists()


def test_zero_usable_pictures_are_an_error(tmp_path, settings_of):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("bad")
    with pytest.raises(SourceError, match="1 of 1 pictures are bad, so no usable one is left"):
        prepare(settings_of(folder(tmp_path / "bad"), max_bad_share=1.0), 0, tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


def test_nothing_to_validate_on_is_an_error(tmp_path, photos, settings_of):
    for path in sorted(photos.iterdir())[1:]:
        path.unlink()
    with pytest.raises(SourceError, match="held out for validation; got 1"):
        prepare(settings_of(folder(photos)), 0, tmp_path / "clean")
    report = prepare(settings_of(folder(photos), LEAVES), 0, tmp_path / "clean")
    assert report["sources"][str(photos)]["train"]["images"] == 1
    assert "all go to train" in stage._summary(report)


def test_a_source_listed_twice_is_an_error(tmp_path, settings_of):
    with pytest.raises(SourceError, match="dead_leaves is listed more than once"):
        prepare(settings_of(LEAVES, LEAVES), 0, tmp_path / "clean")


def test_dead_leaves_smaller_than_a_tile_are_an_error(tmp_path, settings_of):
    source = Source(None, None, DeadLeaves(2, 31))
    with pytest.raises(SourceError, match=r"prepare.tile \(32\) or more, got 31"):
        prepare(settings_of(source), 0, tmp_path / "clean")


@pytest.mark.parametrize("scale", [0.0, 1.5, -1.0])
def test_scales_that_enlarge_are_an_error(tmp_path, photos, settings_of, scale):
    with pytest.raises(ValueError, match="above 0 up to 1"):
        prepare(settings_of(folder(photos, scale)), 0, tmp_path / "clean")


def test_failing_halfway_leaves_the_last_good_tiles(tmp_path, settings_of, monkeypatch):
    prepare(settings_of(), 0, tmp_path / "clean")
    before = (tmp_path / "clean" / "train.parquet").read_bytes()
    real, calls = cutting.read_picture, []

    def fail_on_the_third(picture):
        calls.append(picture)
        if len(calls) == 3:
            raise OSError("disk full")
        return real(picture)

    monkeypatch.setattr(cutting, "read_picture", fail_on_the_third)
    with pytest.raises(OSError, match="disk full"):
        prepare(settings_of(), 1, tmp_path / "clean")
    assert (tmp_path / "clean" / "train.parquet").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["clean"]


def test_builtin_photographs_make_tiles_on_both_sides(tmp_path, settings_of):
    source = Source(None, Builtin((0.5,)), None)
    report = prepare(settings_of(source, tile=128, stride=128), 0, tmp_path / "clean")
    assert report["quarantined"] == report["duplicate_images_dropped"] == 0
    assert report["sources"]["builtin"]["train"]["tiles"] > 15
    assert report["sources"]["builtin"]["val"]["tiles"] > 3


@given(length=st.integers(0, 500), tile=st.integers(1, 100), share=st.floats(0.1, 1))
def test_tiles_lie_inside_and_leave_no_pixel_out(length, tile, share):
    stride = max(1, int(tile * share))
    places = starts(length, tile, stride)
    if length < tile:
        assert places == []
        return
    assert places == sorted(set(places))
    covered = {pixel for start in places for pixel in range(start, start + tile)}
    assert covered == set(range(length))


def test_a_scale_at_which_the_picture_is_too_small_gives_no_tiles():
    tiles = list(cut_tiles(picture(0), "s", "n", (1.0, 0.5, 0.4), 32, 32))
    assert [t.image_id for t in tiles].count("s/n@0.5/x0y0") == 1
    assert len(tiles) == 5


@settings(deadline=None)  # a machine that is busy with other tests
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scales=st.lists(st.sampled_from([1.0, 0.6, 0.5, 0.1]), max_size=3).map(tuple),
    stride=st.integers(4, 24),
)
def test_as_many_tiles_are_cut_as_a_size_promises(size, scales, stride):
    tiles = list(cut_tiles(np.zeros((*size, 3), np.float32), "s", "n", scales, 16, stride))
    assert len(tiles) == count_tiles(size, scales, 16, stride)


@given(count=st.integers(2, 60), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_split_keeps_both_sides_and_every_picture(count, share, seed):
    pictures = [Picture("s", str(i), (1.0,), None, 8) for i in range(count)]
    parts = split_pictures(pictures, share, seed)
    assert sorted(p.name for part in parts.values() for p in part) == sorted(p.name for p in pictures)
    assert 1 <= len(parts["val"]) <= count - 1
    assert abs(len(parts["val"]) - share * count) <= 1


def add_all(seen, bits, codes):
    """Add all codes to `seen`, whose answers are what comparing with all that were kept gives; those that are kept."""
    kept = []
    for code in codes:
        new = all((code ^ other).bit_count() > bits for other in kept)
        assert seen.add(code) == new
        if new:
            kept.append(code)
    return kept


@settings(deadline=None)
@given(
    codes=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    flips=st.lists(st.lists(st.integers(0, 63), max_size=8), max_size=20),
    bits=st.sampled_from([0, 1, 3, 6, 10, 63]),
)
def test_the_index_finds_what_comparing_all_pairs_finds(codes, flips, bits):
    for code, flipped in zip(list(codes), flips, strict=False):
        for bit in flipped:
            code ^= 1 << bit
        codes.append(code)
    add_all(Seen(bits), bits, codes)


@pytest.mark.parametrize("bits", [1, 3, 10])
def test_the_index_finds_the_same_among_many_that_share_a_chunk(bits):
    rng = np.random.default_rng(bits)
    codes = [int(code) << 32 for code in rng.integers(0, 2**32, 300)]
    for code in codes[:]:
        flipped = rng.choice(64, rng.integers(0, bits + 4), replace=False)
        codes.append(code ^ sum(1 << int(bit) for bit in flipped))
    seen = Seen(bits)
    kept = add_all(seen, bits, codes)
    assert max(len(bucket) for table in seen._tables for bucket in table.values()) > duplicates._LONG
    assert 30 < len(kept) < len(codes) - 100


@pytest.mark.parametrize("bits", [-1, 64])
def test_impossible_hash_distances_are_errors(bits):
    with pytest.raises(ValueError, match="expected 0 to 63"):
        Seen(bits)


def test_hashes_of_different_pictures_are_far_apart():
    codes = [perceptual_hash(picture(index)) for index in range(30)]
    assert all((a ^ b).bit_count() > 8 for i, a in enumerate(codes) for b in codes[:i])
