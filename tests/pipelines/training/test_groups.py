"""Shards to batches: a function of (seed, step), with the exact mix, and loud about damage."""

import itertools
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.common.params import Ingest
from pipelines.data.rows import CLEAN_ROW, SHARD_ROW, decode_levels, write_rows
from pipelines.data.shards import ShardError
from pipelines.training.batches import training_batches
from pipelines.training.groups import open_mix, read_groups

REMEDY = r"remake it with `dvc repro -f -s synthesize@derain`"


@pytest.fixture
def mix(shards, task_table):
    return open_mix(shards, task_table, "train", seed=3)


def tables(mix, first, last, size=4):
    """What a worker receives: a table of groups a step."""
    for start in range(first, last, size):
        yield read_groups(mix, start, min(start + size, last))


def batches(mix, first=0, last=12, seed=0, size=4, left_alone=0.0, threads=2, prefetch=2):
    stream = tables(mix, first, last, size)
    return list(training_batches(stream, mix.index, Ingest(8, left_alone, threads, prefetch), seed))


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
    origins = [origin for table in tables(mix, 0, 12) for origin in itertools.chain(*table["origin"].to_pylist())]
    assert len(origins) == 60
    assert not any("derain" in origin for origin in origins)


def test_groups_keep_the_exact_mix_and_see_each_sample_equally_often(mix, shards):
    groups = [row for table in tables(mix, 0, 36) for row in table.to_pylist()]
    assert [group["group"] for group in groups] == list(range(36))
    seen = Counter()
    for group in groups:
        of_task = [origin.split("/")[-3] for origin in group["origin"]]
        assert of_task == ["denoise"] * 2 + ["derain"] + ["deblur"] * 3
        seen.update(group["origin"])
    by_task = {
        task: [n for origin, n in seen.items() if f"/{task}/" in origin] for task in ("denoise", "derain", "deblur")
    }
    assert by_task["denoise"] == [6] * 12  # 36 groups of 2 from 12 rows
    assert by_task["derain"] == [4] * 9
    assert sorted(by_task["deblur"]) == [8] * 9 + [9] * 4 or set(by_task["deblur"]) == {8, 9}


def test_the_origin_of_a_sample_is_where_its_images_are(mix):
    (table,) = tables(mix, 5, 8)
    for group in table.to_pylist():
        for origin, degraded, clean in zip(group["origin"], group["degraded"], group["clean"], strict=True):
            path, _, place = origin.partition(" row group ")
            number, _, row = place.partition(" row ")
            stored = pq.ParquetFile(path).read_row_group(int(number)).to_pylist()[int(row)]
            assert (stored["degraded"], stored["clean"]) == (degraded, clean)


@pytest.mark.parametrize(("first", "size"), [(0, 1), (0, 5), (4, 3), (7, 32)])
def test_groups_do_not_depend_on_where_reading_begins_or_how_much_is_read_at_once(mix, first, size):
    def content(stream):
        return [row for table in stream for row in table.to_pylist()]

    assert content(tables(mix, first, 20, size)) == content(tables(mix, 0, 20, 20))[first:]


def test_batches_are_pairs_sorted_by_task(mix):
    stored = {}
    for table in tables(mix, 0, 40):
        for group in table.to_pylist():
            for task, degraded, clean in zip(mix.index, group["degraded"], group["clean"], strict=True):
                degraded, clean = decode_levels(degraded), decode_levels(clean)
                stored[int(degraded[0, 0, 0])] = (task, int(clean[0, 0, 1]))
    for batch in batches(mix):
        assert batch.degraded.shape == batch.clean.shape == (24, 3, 8, 8)
        assert batch.degraded.dtype == batch.clean.dtype == torch.float32
        assert batch.degraded.is_contiguous()
        assert batch.index.tolist() == [0] * 8 + [1] * 4 + [2] * 12
        for degraded, clean, task in zip(batch.degraded, batch.clean, batch.index, strict=True):
            red, green = degraded[0] * 255, clean[1] * 255  # constant: the number of the pair
            assert red.min() == red.max()
            assert stored[round(red[0, 0].item())] == (task, round(green[0, 0].item()))


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (3, 2), (2, 20)])
def test_batches_are_the_same_whatever_the_threads(mix, threads, prefetch):
    for got, expected in zip(batches(mix, threads=threads, prefetch=prefetch), batches(mix), strict=True):
        assert torch.equal(got.degraded, expected.degraded)
        assert torch.equal(got.clean, expected.clean)
        assert torch.equal(got.index, expected.index)


def test_batches_go_on_where_they_stopped_and_differ_by_seed(mix):
    whole, rest = batches(mix), batches(mix, first=4)
    assert len(whole) == 3
    for got, expected in zip(rest, whole[1:], strict=True):
        assert torch.equal(got.degraded, expected.degraded)
    assert not torch.equal(batches(mix, seed=1)[0].degraded, whole[0].degraded)


def test_geometry_is_fresh_each_time_a_sample_comes(mix):
    crops: dict[int, set] = {}
    for batch in batches(mix, last=36):
        for degraded in batch.degraded:
            crops.setdefault(round(degraded[0, 0, 0].item() * 255), set()).add(degraded.numpy().tobytes())
    assert len(crops) == 34
    assert np.mean([len(variants) for variants in crops.values()]) > 4


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
        [{"image_id": "a", "source": "b", "clean": b"", "height": 1, "width": 1}],
        CLEAN_ROW,
        8,
    )
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(columns .*expected \['task'.*{REMEDY}$"):
        open_mix(folder, task_table, "train", 0)


def test_a_shard_damaged_after_opening_is_named_with_the_remedy(damaged, task_table):
    folder, path = damaged
    mix = open_mix(folder, task_table, "train", 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(.*{REMEDY}$"):
        list(tables(mix, 0, 9))


def test_a_shard_gone_after_opening_is_damage_but_a_folder_gone_is_a_storage_that_is_away(damaged, task_table):
    folder, path = damaged
    mix = open_mix(folder, task_table, "train", 0)
    path.unlink()
    with pytest.raises(ShardError, match=rf"^{path}: damaged shard \(.*{REMEDY}$"):
        list(tables(mix, 0, 9))
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError):
        list(tables(mix, 0, 9))


@pytest.mark.parametrize("column", ["degraded", "clean"])
def test_a_damaged_image_in_a_shard_is_named_with_its_row_and_the_remedy(damaged, task_table, column):
    folder, path = damaged
    rows = pq.read_table(path).to_pylist()
    rows[7][column] = rows[7][column][:60]
    write_rows(path, rows, SHARD_ROW, 3)
    mix = open_mix(folder, task_table, "train", 0)
    message = rf"^{path} row group 2 row 1: damaged shard \(image of 60 bytes .*{REMEDY}$"
    with pytest.raises(ShardError, match=message):
        batches(mix)


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


def test_which_samples_are_left_alone_does_not_depend_on_threads_or_the_cut_into_batches(mix):
    one = batches(mix, left_alone=0.5, threads=1, size=4)
    two = batches(mix, left_alone=0.5, threads=3, size=4)
    assert all(
        torch.equal(a.degraded, b.degraded) and torch.equal(a.clean, b.clean) for a, b in zip(one, two, strict=True)
    )
    assert {n for b in one for n in red(b.degraded)} == {
        n for b in batches(mix, left_alone=0.5, size=2) for n in red(b.degraded)
    }
