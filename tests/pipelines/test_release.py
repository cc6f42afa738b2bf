"""The params of a release, and what is refused before hours of training."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from degradations.recipe import check_recipe
from pipelines.common.params import load_params
from pipelines.release import OVERLAY, decay, overlay_values, start, write_overlaid

ROOT = Path(__file__).parents[2]


def test_blocks_go_over_blocks_key_by_key_and_anything_else_whole():
    tree = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    overlay_values(tree, {"a": {"y": [9], "z": {"new": 1}}, "b": {"c": 4}})
    assert tree == {"a": {"x": 1, "y": [9], "z": {"new": 1}}, "b": {"c": 4}}


@pytest.fixture
def released(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    write_overlaid(path, YAML().load((ROOT / OVERLAY).read_text()))
    return path


def test_the_params_of_a_release_are_params(released):
    params, default = load_params(released), load_params(ROOT / "params.yaml")
    assert list(params.tasks) == list(default.tasks)
    assert params.train.decay_steps == 0
    assert params.tasks["derain"].instructions == default.tasks["derain"].instructions
    for name, task in params.tasks.items():
        check_recipe(task.recipe, name)
    assert "# samples of this task in every group" in released.read_text()  # it is to be read and changed


def test_a_release_needs_photographs(tmp_path):
    for photographs in (None, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"--photographs .*: expected a folder of clean photographs"):
            start(tmp_path / "release", photographs)
    assert not (tmp_path / "release").exists()


def test_one_that_is_begun_keeps_its_photographs(released, tmp_path):
    with pytest.raises(FileExistsError, match="is begun already"):
        start(tmp_path, tmp_path)


def test_nothing_is_finished_that_was_not_begun(tmp_path):
    with pytest.raises(FileNotFoundError, match="no release was begun here"):
        decay(tmp_path)
