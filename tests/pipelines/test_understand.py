"""The stage understand: which tiles it takes, that its scores are shares, and that its weights come back."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from ipt.pixels import to_levels
from ipt.understanding.estimator import Estimator, estimate
from ipt.understanding.instruction import MOST_READERS, InstructionModel
from ipt.weights import load_weights
from pipelines import understand as stage
from pipelines.common.params import load_params
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.data.tiles import open_tiles
from pipelines.understand import (
    clean_rows,
    fit_estimator,
    fit_instructions,
    labelled_images,
    score_estimator,
    training_tiles,
    understand,
)
from pipelines.understanding.held_out import score_held_out

CLEAN_SCHEMA = row_schema(CLEAN_COLUMNS, 128, 128)


@pytest.fixture(scope="module")
def params():
    params = load_params()
    small = dataclasses.replace(
        params.understand,
        sentence_steps=4, sentences_per_step=8, tiles=150, tile_steps=5, clean_tiles=20, clean_share=0.5,
    )  # fmt: skip
    tasks = {name: params.tasks[name] for name in ("denoise", "derain")}
    return dataclasses.replace(params, understand=small, tasks=tasks)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    rng = np.random.default_rng(0)
    for name, count in (("train", 23), ("val", 5)):
        rows = [
            {
                "image_id": f"{name}/{number}", "source": "folder", "height": 128, "width": 128,
                "clean": to_levels(np.kron(rng.random((8, 8, 3)), np.ones((16, 16, 1))).astype(np.float32)),
            }
            for number in range(count)
        ]  # fmt: skip
        write_rows(folder / f"{name}.parquet", rows, CLEAN_SCHEMA, row_group_rows=4)
    return folder


@contextmanager
def threads(items, each=1):
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_as_many_readers_may_be_asked_for_as_a_checkpoint_may_have():
    schema = json.loads(Path("params.schema.json").read_text())
    most = schema["$defs"]["Understand"]["properties"]["readers"]["maximum"]
    assert most == MOST_READERS


@pytest.mark.parametrize("readers", [1, 3])
def test_so_many_readers_are_trained(params, readers, monkeypatch):
    monkeypatch.setattr(stage, "processes", threads)
    settings = dataclasses.replace(params.understand, readers=readers)
    model = fit_instructions(dataclasses.replace(params, understand=settings))
    assert len(model.readers) == readers


def test_clean_tiles_are_taken_evenly_and_each_once(clean):
    everything = clean_rows(open_tiles(clean / "train.parquet"), 10**6)
    assert len({tile.tobytes() for tile in everything}) == len(everything) == 23
    few = clean_rows(open_tiles(clean / "train.parquet"), 3)
    np.testing.assert_array_equal(few, [everything[0], everything[11], everything[22]])


def test_no_clean_tiles_at_all_are_told(tmp_path):
    write_rows(tmp_path / "train.parquet", [], CLEAN_SCHEMA, row_group_rows=4)
    with pytest.raises(ValueError, match=r"train\.parquet: expected clean tiles, got none"):
        clean_rows(open_tiles(tmp_path / "train.parquet"), 3)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_missing_clean_tiles_are_told_before_anything_is_trained(params, clean, tmp_path, monkeypatch, missing):
    shutil.copytree(clean, tmp_path / "clean")
    (tmp_path / "clean" / f"{missing}.parquet").unlink()
    monkeypatch.setattr(stage, "fit_instructions", lambda params: pytest.fail("it was trained"))
    with pytest.raises(FileNotFoundError, match=rf"{missing}\.parquet: expected clean tiles; make them with"):
        understand(params, tmp_path / "clean", tmp_path / "out")


def test_training_tiles_do_not_depend_on_the_processes(params, clean, monkeypatch):
    tiles = open_tiles(clean / "train.parquet")
    statistics, labels = training_tiles(params, tiles)
    in_pieces = training_tiles(params, tiles, map)  # as nodes make them
    monkeypatch.setattr(stage, "processes", threads)
    for again, labels_again in (training_tiles(params, tiles), in_pieces):
        assert torch.equal(statistics, again)
        assert torch.equal(labels, labels_again)
    assert len(labels) == len(statistics) == 192  # whole chunks
    assert set(labels.tolist()) == {0, 1, 2}
    assert torch.isfinite(statistics).all()


def test_of_tasks_that_are_not_blind_no_tile_is_made_and_none_is_seen(params, clean):
    settings = dataclasses.replace(params.understand, blind=("derain",))
    params = dataclasses.replace(params, understand=settings)
    tiles = open_tiles(clean / "train.parquet")
    assert set(training_tiles(params, tiles)[1].tolist()) == {0, 1}
    assert {label for _, label in labelled_images(params, tiles, 1)} == {1, 2}  # as tasks: derain and clean
    seen = estimate(fit_estimator(params, tiles, tiles), np.random.default_rng(0).random((60, 60, 3), np.float32))
    assert seen[0] == 0
    assert (seen[1:] > 0).all()


def test_the_weights_are_those_that_were_scored(params, clean, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "processes", threads)
    scores = understand(params, clean, tmp_path / "out")
    instruction, estimator = InstructionModel(2, params.understand.readers).eval(), Estimator(2).eval()
    load_weights(instruction, tmp_path / "out" / "instruction.safetensors")
    load_weights(estimator, tmp_path / "out" / "estimator.safetensors")
    tasks = list(params.tasks)
    assert scores["instructions"] == score_held_out(instruction, tasks)
    images = stage.labelled_images(params, open_tiles(clean / "val.parquet"), 1)
    assert score_estimator(estimator, tasks, images) == scores["tiles"]


def test_scores_of_the_estimator_are_shares_by_label():
    estimator = Estimator(2).eval()
    with torch.no_grad():
        estimator.score.bias[2] = 5
    image = np.zeros((16, 16, 3), np.float32)
    scores = score_estimator(estimator, ["denoise", "derain"], [(image, 0), (image, 2), (image, 2)])
    assert scores == {"denoise": 0.0, "clean": 1.0}
