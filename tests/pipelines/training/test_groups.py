"""Shards to batches: a function of (seed, step), with the exact mix, and loud about damage."""

import itertools
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.common.params import Ingest
from pipelines.data.rows import CLEAN_COLUMNS, SHARD_COLUMNS, row_schema, rows_of, write_rows
from pipelines.data.shards import ShardError, by_group, read_pairs
from pipelines.training.batches import training_batches
from pipelines.training.groups import open_mix, read_groups

REMEDY = r"remake it with `dvc repro -f -s synthesize@derain`"


@pytest.fixture
def mix(shards, task_table):
    return open_mix(shards, task_table, "train", seed=3)


def steps(mix, first, last, size=4, crop=8, left_alone=0.0):
    """What a worker receives: the groups of each step."""
    for start in range(first, last, size):
        yield read_groups(mix, Ingest(crop, left_alone), start, min(start + size, last))


def joined(parts):
    """The groups of many steps as those of one."""
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in ("degraded", "clean")}


def batches(mix, first=0, last=12, size=4, left_alone=0.0):
    return list(training_batches(steps(mix, first, last, size, left_alone=left_alone), mix.index))


def numbers(groups):
    """Which pair of the shards each sample of each group is: the red of its degraded image is even and counts them."""
    reds = groups["degraded"][:, :, 0]
    greens = groups["clean"][:, :, 1]
    assert (np.ptp(reds, axis=(2, 3)) == 0).all()
    np.testing.assert_array_equal(reds, greens)  # degraded and clean belong together
    return reds[:, :, 0, 0]


def stored(mix):
    """Degraded and clean image of each sample in the shards, and its task, by that number."""
    found = {}
    for task, groups in enumerate(mix.row_groups):
        rows = [(group, row) for group in groups for row in range(group.rows)]
        for degraded, clean in zip(*read_pairs(rows), strict=True):
            assert degraded[0, 0, 0] == clean[0, 0, 1]
            found[int(degraded[0, 0, 0])] = task, degraded, clean
    return found


def test_only_listed_tasks_are_opened_in_their_order(shards, task_table, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    (folder / "derain" / "train" / "00000.parquet").write_bytes(b"never read")
    tasks = {name: task_table[name] for name in ("deblur", "denoise")}
    mix = open_mix(folder, tasks, "train", seed=0)
    assert mix.shares == (3, 2)
    assert mix.index == [0, 0, 0, 1, 1]
    assert [sum(group.rows for group in groups) for groups in mix.row_groups] == [13, 12]
    assert [[g.rows for g in groups] for groups in mix.row_groups] == [
        [3, 1, 3, 3, 3],
        [3, 3, 1, 3, 2],
    ]
    assert not any("derain" in group.path for groups in mix.row_groups for group in groups)
    seen = numbers(joined(steps(mix, 0, 12)))
    assert seen.size == 60
    of_derain = pq.read_table(shards / "derain" / "train" / "00000.parquet", columns=["seed"])["seed"].to_pylist()
    assert len(of_derain) == 9
    assert not set(seen.ravel()) & set(of_derain)


def test_groups_keep_the_exact_mix_and_see_each_sample_equally_often(mix):
    groups = joined(steps(mix, 0, 36))
    assert groups["degraded"].shape == groups["clean"].shape == (36, 6, 3, 8, 8)
    assert groups["degraded"].dtype == groups["clean"].dtype == np.uint8
    task_of = {number: task for number, (task, _, _) in stored(mix).items()}
    seen = Counter()
    for group in numbers(groups):
        assert [task_of[number] for number in group] == [0] * 2 + [1] + [2] * 3 == mix.index
        seen.update(group)
    by_task = [[count for number, count in seen.items() if task_of[number] == task] for task in range(3)]
    assert by_task[0] == [6] * 12  # 36 groups of 2 from 12 rows
    assert by_task[1] == [4] * 9
    assert sorted(by_task[2]) == [8] * 9 + [9] * 4 or set(by_task[2]) == {8, 9}


def test_a_sample_is_a_cut_of_the_images_that_are_stored(mix):
    """As tall as the tile there is one place, so its eight turns are all there is."""
    images = stored(mix)
    groups = joined(steps(mix, 5, 8, crop=16))
    for group, of_group in enumerate(numbers(groups)):
        for sample, number in enumerate(of_group):
            turned = [
                [np.rot90(image[::flip], turn).transpose(2, 0, 1).tobytes() for flip in (1, -1) for turn in range(4)]
                for image in images[number][1:]
            ]
            cuts = [groups[name][group, sample].tobytes() for name in ("degraded", "clean")]
            assert turned[0].index(cuts[0]) == turned[1].index(cuts[1])  # both in the same way


def test_groups_of_a_seed_are_samples_of_the_tasks_streams(mix):
    """In the order of `TaskStream`, whatever row group they come from."""
    groups = numbers(joined(steps(mix, 3, 9, size=6)))
    first = 0
    for share, stream in zip(mix.shares, mix.streams, strict=True):
        samples = stream.take(3 * share, 6 * share)
        assert len(by_group(samples)) > 1
        expected = read_pairs(samples)[0][:, 0, 0, 0]
        np.testing.assert_array_equal(groups[:, first : first + share].ravel(), expected)
        first += share


@pytest.mark.parametrize("left_alone", [0.0, 0.5])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 29)), first=st.integers(0, 29))
def test_groups_do_not_depend_on_where_reading_begins_or_how_much_is_read_at_once(mix, left_alone, cuts, first):
    """Any way of cutting a range into reads gives the same groups: they depend on (seed, group, place) alone."""
    settings = Ingest(8, left_alone)
    whole = read_groups(mix, settings, 0, 30)
    places = sorted({first, 30, *(cut for cut in cuts if cut > first)})
    parts = joined(read_groups(mix, settings, *part) for part in itertools.pairwise(places))
    for name, values in parts.items():
        np.testing.assert_array_equal(values, whole[name][first:])


def test_groups_differ_by_seed_also_in_their_geometry(shards, task_table):
    """Whole tiles of one pair a task: only their turns are left to differ."""
    one, other = (open_mix(shards, task_table, "train", seed) for seed in (0, 1))
    assert not np.array_equal(*(joined(steps(mix, 0, 4))["clean"] for mix in (one, other)))
    turns = []
    for mix in (one, other):
        groups = joined(steps(mix, 0, 60, crop=16))
        turns.append(dict(zip(numbers(groups).ravel(), groups["clean"].reshape(-1, 3 * 256), strict=True)))
    assert set(turns[0]) == set(turns[1])
    assert any((turns[0][number] != turns[1][number]).any() for number in turns[0])


def test_batches_are_pairs_sorted_by_task_with_the_exact_values(mix):
    made, groups = batches(mix), list(steps(mix, 0, 12))
    assert len(made) == len(groups) == 3
    for batch, of_step in zip(made, groups, strict=True):
        assert batch.degraded.shape == batch.clean.shape == (24, 3, 8, 8)
        assert batch.degraded.dtype == batch.clean.dtype == torch.float32
        assert batch.degraded.is_contiguous()
        assert batch.clean.is_contiguous()
        assert batch.index.tolist() == [0] * 8 + [1] * 4 + [2] * 12
        for name, images in (("degraded", batch.degraded), ("clean", batch.clean)):
            assert 0 <= images.min() <= images.max() <= 1
            by_task = np.concatenate([of_step[name][:, start:stop].reshape(-1, 3, 8, 8)
                                      for start, stop in ((0, 2), (2, 3), (3, 6))])  # fmt: skip
            np.testing.assert_array_equal(images.numpy(), by_task.astype(np.float32) / 255)


@pytest.mark.filterwarnings("error")
def test_batches_are_made_of_memory_that_is_rays_and_leave_it_alone(mix):
    """What Ray hands out may not be written to, and torch warns of such memory."""
    (groups,) = steps(mix, 0, 4)
    before = {name: values.copy() for name, values in groups.items()}
    for values in groups.values():
        values.flags.writeable = False
    (batch,) = training_batches([groups], mix.index)
    batch.degraded.zero_()
    for name, values in groups.items():
        np.testing.assert_array_equal(values, before[name])


def test_a_task_index_that_is_not_sorted_is_sorted_and_groups_stay_in_order():
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1)
    (batch,) = training_batches([{"degraded": levels, "clean": levels}], [1, 0, 1])
    assert batch.index.tolist() == [0, 0, 1, 1, 1, 1]
    assert (batch.clean.ravel() * 255).round().int().tolist() == [1, 4, 0, 2, 3, 5]


def test_batches_go_on_where_they_stopped_and_differ_by_seed(mix, shards, task_table):
    whole, rest = batches(mix), batches(mix, first=4)
    assert len(whole) == 3
    for got, expected in zip(rest, whole[1:], strict=True):
        assert torch.equal(got.degraded, expected.degraded)
        assert torch.equal(got.clean, expected.clean)
        assert torch.equal(got.index, expected.index)
    other = open_mix(shards, task_table, "train", seed=4)
    assert not torch.equal(batches(other)[0].degraded, whole[0].degraded)


def test_geometry_is_fresh_each_time_a_sample_comes(mix):
    crops: dict[int, set] = {}
    for batch in batches(mix, last=36):
        for degraded in batch.degraded:
            crops.setdefault(round(degraded[0, 0, 0].item() * 255), set()).add(degraded.numpy().tobytes())
    assert len(crops) == 34
    assert np.mean([len(variants) for variants in crops.values()]) > 4


def test_a_crop_larger_than_the_tiles_is_told(mix):
    with pytest.raises(ValueError, match="crop: expected images of at least 17 x 17 pixels, got 16 x 16"):
        read_groups(mix, Ingest(17, 0.0), 0, 1)


@pytest.fixture
def damaged(shards, tmp_path):
    """A copy of the shards and the path of derain's only training shard in it."""
    shutil.copytree(shards, tmp_path / "shards")
    return tmp_path / "shards", tmp_path / "shards" / "derain" / "train" / "00000.parquet"


@pytest.mark.parametrize("content", [b"", b"not parquet at all", None], ids=["empty", "text", "truncated"])
def test_a_shard_that_is_not_parquet_is_named_with_the_remedy(damaged, task_table, content):
    folder, path = damaged
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(.*{REMEDY}$"):
        open_mix(folder, task_table, "train", 0)


def test_a_shard_with_other_columns_is_named_with_the_remedy(damaged, task_table):
    folder, path = damaged
    write_rows(
        path,
        [{"image_id": "a", "source": "b", "clean": np.zeros((1, 1, 3), np.uint8), "height": 1, "width": 1}],
        row_schema(CLEAN_COLUMNS, 1, 1),
        8,
    )
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(columns .*expected \['task'.*{REMEDY}$"):
        open_mix(folder, task_table, "train", 0)


def test_a_shard_damaged_after_opening_is_named_with_the_remedy(damaged, task_table):
    folder, path = damaged
    mix = open_mix(folder, task_table, "train", 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ShardError, match=rf"^{path} row group \d: damaged shard \(.*{REMEDY}$"):
        list(steps(mix, 0, 9))


def test_a_shard_gone_after_opening_is_damage_but_a_folder_gone_is_a_storage_that_is_away(damaged, task_table):
    folder, path = damaged
    mix = open_mix(folder, task_table, "train", 0)
    path.unlink()
    with pytest.raises(ShardError, match=rf"^{path} row group \d: damaged shard \(.*{REMEDY}$"):
        list(steps(mix, 0, 9))
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError):
        list(steps(mix, 0, 9))


@pytest.mark.parametrize("column", [3, 4], ids=["degraded", "clean"])
def test_a_damaged_image_in_a_shard_is_named_with_its_row_group_and_the_remedy(damaged, task_table, column):
    folder, path = damaged
    chunk = pq.read_metadata(path).row_group(2).column(column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(content)
    mix = open_mix(folder, task_table, "train", 0)
    message = rf"^{path} row group 2: damaged shard \(.*CRC checksum.*{REMEDY}$"
    with pytest.raises(ShardError, match=message):
        batches(mix)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda table: table.replace_schema_metadata(None), "rows of version 1, expected 2"),
        (lambda table: table.drop_columns(["severity"]), "columns .*expected"),
        (lambda table: table.set_column(9, "seed", table["variant"]), "seed is int32, expected int64"),
    ],
    ids=["version", "column", "type"],
)
def test_a_shard_of_another_kind_is_named_with_the_remedy(damaged, task_table, changed, reason):
    folder, path = damaged
    pq.write_table(changed(pq.read_table(path)), path)
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \({reason}.*{REMEDY}$"):
        open_mix(folder, task_table, "train", 0)


def test_a_shard_with_images_of_another_size_is_named_with_the_remedy(damaged, task_table):
    folder, path = damaged
    rows = rows_of(pq.read_table(path))
    smaller = [row | {name: row[name][:9, :9] for name in ("degraded", "clean")} for row in rows]
    write_rows(path.with_name("00001.parquet"), smaller, row_schema(SHARD_COLUMNS, 9, 9), 3)
    with pytest.raises(ShardError, match=rf"00001\.parquet: damaged shard \(images of .*{REMEDY}$"):
        open_mix(folder, task_table, "train", 0)


def test_missing_shards_are_an_error(shards, task_table, tmp_path):
    with pytest.raises(FileNotFoundError, match="denoise/train: expected Parquet files, found none"):
        open_mix(tmp_path, task_table, "train", 0)
    with pytest.raises(FileNotFoundError, match="desnow/train: expected"):
        open_mix(shards, task_table | {"desnow": task_table["derain"]}, "train", 0)


def red(images):
    """Which pair of the shards each degraded image is of: its red counts them (the green of a clean one too)."""
    return (images[:, 0].mean((1, 2)) * 255).round().int().tolist()


def test_samples_left_alone_are_their_own_target_and_as_many_as_asked(mix):
    samples = [(b.degraded, b.clean, b.index) for b in batches(mix, last=120, left_alone=0.5)]
    degraded, clean, index = (torch.cat(parts) for parts in zip(*samples, strict=True))
    alone = (degraded == clean).flatten(1).all(1)
    assert len(alone) == 720
    assert 0.43 < alone.float().mean() < 0.57
    for task in range(3):
        assert 0.35 < alone[index == task].float().mean() < 0.65
    assert [(index == task).sum().item() for task in range(3)] == [240, 120, 360]  # the mix stays that of the groups


def test_what_is_left_alone_is_clean_another_tasks_damage_or_drawn(mix):
    plain = batches(mix, last=120)
    some = batches(mix, last=120, left_alone=1.0)
    own = {task: set() for task in range(3)}
    for batch in plain:
        for number, task in zip(red(batch.degraded), batch.index.tolist(), strict=True):
            own[task].add(number)
    kinds = {"clean": 0, "other": 0, "drawn": 0}
    everything = set().union(*own.values())
    for batch in some:
        assert torch.equal(batch.degraded, batch.clean)
        numbers = zip(red(batch.degraded), batch.index.tolist(), batch.degraded, strict=True)
        for number, task, image in numbers:
            if (image[1] == image[1, 0, 0]).all() and (image[1, 0, 0] * 255).round().int().item() in everything:
                kinds["clean"] += 1  # its green is even and counts
            elif (image[0] == image[0, 0, 0]).all() and number in everything - own[task]:
                kinds["other"] += 1
            else:
                kinds["drawn"] += 1
    total = sum(kinds.values())
    assert 0.35 < kinds["clean"] / total < 0.6
    assert 0.3 < kinds["other"] / total < 0.5
    assert 0.08 < kinds["drawn"] / total < 0.25


def test_which_samples_are_left_alone_does_not_depend_on_the_cut_into_batches(mix):
    one, two = (batches(mix, left_alone=0.5, size=size) for size in (4, 2))
    assert {n for b in one for n in red(b.degraded)} == {n for b in two for n in red(b.degraded)}
    for large, small in zip(one, zip(two[::2], two[1::2], strict=True), strict=True):
        for task in range(3):
            parts = [each.degraded[each.index == task] for each in small]
            assert torch.equal(large.degraded[large.index == task], torch.cat(parts))


def test_a_task_alone_has_no_others_damage_to_leave_alone(shards, task_table):
    mix = open_mix(shards, {"derain": task_table["derain"]}, "train", 0)
    for groups in steps(mix, 0, 40, left_alone=1.0):
        np.testing.assert_array_equal(groups["degraded"], groups["clean"])
