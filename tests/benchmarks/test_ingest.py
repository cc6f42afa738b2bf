"""The contenders of the benchmark of reading hand out the same samples."""

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import ingest
from benchmarks.png_shards import png_shards, read_png_groups
from pipelines.common.params import Ingest
from pipelines.data.rows import images_of
from pipelines.training.groups import open_mix, read_groups


@pytest.fixture
def mix(shards, task_table):
    return open_mix(shards, task_table, "train", seed=3)


@pytest.fixture
def as_png(mix, shards, tmp_path):
    return png_shards(mix, shards, tmp_path)


def test_png_shards_hold_the_same_images_in_the_same_row_groups(mix, as_png):
    for ours, theirs in zip(mix.row_groups, as_png.row_groups, strict=True):
        assert ours.rows.tolist() == theirs.rows.tolist()
        for path, other in zip(ours.paths, theirs.paths, strict=True):
            table, coded = pq.read_table(path), pq.read_table(other)
            for name in ("degraded", "clean"):
                decoded = [cv2.imdecode(np.frombuffer(data.as_py(), np.uint8), -1)[..., ::-1] for data in coded[name]]
                np.testing.assert_array_equal(decoded, images_of(table, name))


def test_png_groups_hold_the_same_samples_cut_alike_in_both_images(mix, as_png):
    ours, theirs = read_groups(mix, Ingest(8, 0.0), 3, 15), read_png_groups(as_png, 8, 3, 15)
    assert theirs["degraded"].shape == theirs["clean"].shape == ours["clean"].shape
    np.testing.assert_array_equal(ours["degraded"][:, :, 0, 0, 0], theirs["degraded"][:, :, 0, 0, 0])  # its number
    np.testing.assert_array_equal(theirs["degraded"][:, :, 0], theirs["clean"][:, :, 1])
    whole = read_png_groups(as_png, 16, 0, 6)
    inside = [[np.sort(images.reshape(6, 6, 3, -1)) for images in each.values()] for each in
              (whole, read_groups(mix, Ingest(16, 0.0), 0, 6))]  # fmt: skip
    for theirs, ours in zip(*inside, strict=True):
        np.testing.assert_array_equal(theirs, ours)  # all pixels of the tile, whatever its turn


def test_the_loaders_processes_together_give_every_batch_once(mix, monkeypatch):
    read, given = Ingest(8, 0.0), []
    config = {"mix": mix, "steps": 9, "groups_per_step": 2, "groups_per_read": 4,
              "read": lambda start, stop: read_groups(mix, read, start, stop)}  # fmt: skip
    for number in range(2):
        info = type("Info", (), {"id": number, "num_workers": 2})
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda info=info: info)
        given += [batch.degraded for batch in ingest.Loaded(config)]
    whole = read_groups(mix, read, 0, 18)["degraded"].reshape(-1, 3, 8, 8).astype(np.float32) / 255
    assert len(given) == 9
    assert sorted(image.tobytes() for batch in given for image in batch.numpy()) == sorted(i.tobytes() for i in whole)


def test_start_up_is_told_apart_and_is_in_the_total(monkeypatch):
    clock = iter([5.0, 9.0, 11.0])  # first batch, WARM batches, the end
    monkeypatch.setattr(ingest, "WARM", 2)
    monkeypatch.setattr(ingest.time, "perf_counter", lambda: next(clock))
    batches = [type("Batch", (), {"index": [0] * 10})] * 5
    assert ingest.consume(iter(batches), started=1.0) == {"first": 4.0, "rate": 10.0, "total": 5.0}
