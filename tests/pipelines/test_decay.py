"""The end of a run that goes on: which checkpoint it begins from, and with which params."""

import dataclasses
import json
from pathlib import Path

import pytest

from pipelines.cluster.storage import Storage
from pipelines.cluster.workers import unfinished
from pipelines.common.params import Decay, load_params
from pipelines.train import begin_decay, decaying

RUN = "train-0123456789ab"


@pytest.fixture
def storage(tmp_path) -> Storage:
    """A storage with two checkpoints of a run."""
    for number, content in ((1, "older"), (2, "newer")):
        folder = tmp_path / RUN / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(content)
    (tmp_path / RUN / "latest.json").write_text(json.dumps({"folder": "checkpoint_2", "step": 40}))
    return Storage(str(tmp_path))


def test_it_begins_from_a_copy_of_the_last_checkpoint(storage, tmp_path):
    name, first = begin_decay(storage, RUN)
    assert (name, first) == (f"{RUN}-decay-40", 40)
    copy = tmp_path / name / "start" / "model.safetensors"
    assert copy.read_text() == "newer"
    assert (tmp_path / RUN / "checkpoint_2" / "model.safetensors").is_file()


def test_one_that_was_stopped_goes_on_from_where_it_began(storage, tmp_path):
    begun = begin_decay(storage, RUN)
    (tmp_path / RUN / "latest.json").write_text(json.dumps({"folder": "checkpoint_1", "step": 60}))
    assert begin_decay(storage, RUN) == begun


def test_a_copy_that_was_cut_short_is_made_again(storage, tmp_path):
    name, _ = begin_decay(storage, RUN)
    (tmp_path / name / "start.json").unlink()
    (tmp_path / name / "start" / "model.safetensors").write_text("half")
    begin_decay(storage, RUN)
    assert (tmp_path / name / "start" / "model.safetensors").read_text() == "newer"


def test_a_run_without_checkpoint_is_an_error_that_says_what_to_do(storage):
    with pytest.raises(FileNotFoundError, match=r"train-other: no checkpoint .* dvc repro train"):
        begin_decay(storage, "train-other")


def test_a_run_and_its_end_are_not_strangers(storage):
    name, _ = begin_decay(storage, RUN)
    assert list(unfinished(storage, "train", RUN)) == []
    assert list(unfinished(storage, "train", name)) == []
    assert len(list(unfinished(storage, "train", "train-other"))) == 2


def test_the_params_of_the_end():
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    params = dataclasses.replace(params, decay=Decay(steps=30, groups_per_step=7, crop=48))
    end = decaying(params, 100)
    assert (end.train.steps, end.train.decay_steps, end.train.groups_per_step) == (130, 30, 7)
    assert end.ingest.crop == 48
    assert end.train.learning_rate == params.train.learning_rate
