"""Where a model's folder says that its checkpoint is, without a registry."""

import json
from pathlib import Path

import pytest

from pipelines.registry.fetch import checkpoint_in


def describe(folder: Path, **flavors: object) -> Path:
    """A folder as MLflow makes it, with these flavors; YAML takes JSON."""
    folder.mkdir()
    (folder / "MLmodel").write_text(json.dumps({"flavors": flavors}))
    return folder


def with_checkpoint(folder: Path, path: object) -> Path:
    return describe(folder, python_function={"artifacts": {"checkpoint": {"path": path}}})


@pytest.mark.parametrize("path", ["/etc", "../other", "artifacts/../../other", "link", "artifacts/link/.", "missing"])
def test_a_checkpoint_outside_of_the_folder_is_refused(tmp_path, path):
    (tmp_path / "other").mkdir()
    model = with_checkpoint(tmp_path / "model", path)
    (model / "artifacts").mkdir()
    for link in ("link", "artifacts/link"):
        (model / link).symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match="MLmodel: checkpoint: expected a folder inside of the model's own, got"):
        checkpoint_in(model)


def test_a_checkpoint_inside_is_found_also_where_the_folder_is_behind_a_link(tmp_path):
    model = with_checkpoint(tmp_path / "model", "artifacts/checkpoint")
    (model / "artifacts/checkpoint").mkdir(parents=True)
    (tmp_path / "link").symlink_to(model)
    assert checkpoint_in(model) == model / "artifacts/checkpoint"
    assert checkpoint_in(tmp_path / "link").is_dir()


def test_a_model_of_somebody_else_is_told(tmp_path):
    for number, flavors in enumerate(({}, {"python_function": {"loader_module": "mlflow.sklearn"}}, {"sklearn": {}})):
        with pytest.raises(ValueError, match="expected the path of an artifact 'checkpoint'"):
            checkpoint_in(describe(tmp_path / str(number), **flavors))
