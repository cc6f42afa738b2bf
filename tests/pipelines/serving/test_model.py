"""A watched alias, with the registry's answers made up; tests/pipelines/test_serve.py has a real one."""

import numpy as np
import pytest

from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.restoring.restore import restore_tasks
from pipelines.serving import model as serve_model
from pipelines.serving.model import Watcher


@pytest.fixture
def store(make_config, fill_parameters, tmp_path, monkeypatch):
    """What the alias names; a name that is no folder is a registry that fails."""
    named = {"version": "1"}
    for seed in (1, 2):
        save_model(fill_parameters(InstructIPT(make_config()), seed, 0.1), tmp_path / f"{seed}")

    def version(uri: str) -> str:
        if named["version"] == "away":
            raise RuntimeError("MLflow at x:\nnobody there")
        return named["version"]

    monkeypatch.setattr(serve_model, "current_version", version)
    load = InstructIPT.from_pretrained
    monkeypatch.setattr(InstructIPT, "from_pretrained", lambda name, device: load(tmp_path / name, device))
    return named


def test_the_model_changes_with_the_alias_and_stays_when_that_fails(store):
    events = []
    watcher = Watcher("models:/m@champion", "cpu", 2, 1000.0, lambda event, **values: events.append((event, values)))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    first = watcher.loaded
    before = restore_tasks(first.model, image, ["denoise"])
    watcher.look()
    assert watcher.loaded is first
    store["version"] = "2"
    watcher.look()
    assert watcher.loaded.version == "2"
    assert not np.array_equal(restore_tasks(watcher.loaded.model, image, ["denoise"]), before)
    with first.own() as one, first.own() as other:  # who took the old one still has it
        assert one is not other
        assert np.array_equal(restore_tasks(one, image, ["denoise"]), before)
    for version in ("away", "no such folder"):
        store["version"] = version
        watcher.look()
        assert watcher.loaded.version == "2"
    assert [event for event, _ in events] == ["model", "model_failed", "model_failed"]
    assert events[1][1] == {"kept": "2", "error": "MLflow at x: nobody there"}
