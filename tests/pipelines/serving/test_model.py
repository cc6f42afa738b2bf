"""A watched alias in a real registry: good versions, a store that is away, changed files, and what is none of ours."""

import copy
import queue
import shutil
from pathlib import Path

import numpy as np
import pytest

from ipt.model import InstructIPT
from ipt.network.checkpoint import CHECKSUMS, save_model
from ipt.restoring.canary import CanaryError
from ipt.restoring.restore import restore_tasks
from pipelines.registry.integrity import FILES, file_hashes
from pipelines.serving.model import Watcher, load
from pipelines.tracking.store import tracking

ALIAS, OURS = "models:/m@champion", "flavors: {python_function: {artifacts: {checkpoint: {path: checkpoint}}}}\n"
NONE_OF_OURS = {  # what MLmodel says
    "no MLmodel": None,
    "another flavor": "flavors: {sklearn: {pickled_model: model.pkl}}\n",
    "a pyfunc of others": "flavors: {python_function: {loader_module: mlflow.sklearn}}\n",
    "artifacts of others": "flavors: {python_function: {artifacts: {weights: {path: w}}}}\n",
    "a path that is none": "flavors: {python_function: {artifacts: {checkpoint: {path: 7}}}}\n",
    "no YAML": "flavors: {python_function: [\n",
    "no mapping": "- 1\n",
    "ours, without its checkpoint": OURS,
}


class Registry:
    """Versions of the model `m` in the store of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        with tracking("test") as client:
            client.create_registered_model("m")

    def add(self, mlmodel: str | None, model: InstructIPT | None = None, hashed: bool = True) -> str:
        """A version that the alias names at once; returns its URI."""
        self.count += 1
        files = self.folder / f"files-{self.count}"
        files.mkdir()
        (files / "some.txt").write_text("so that the folder has a file")
        if mlmodel is not None:
            (files / "MLmodel").write_text(mlmodel)
        if model is not None:
            save_model(model, files / "checkpoint")
        with tracking("test") as client:
            tags = {FILES: file_hashes(files / "checkpoint")} if hashed else {}
            number = client.create_model_version("m", files.as_uri(), tags=tags).version
            client.set_registered_model_alias("m", "champion", number)
        return f"models:/m/{number}"


@pytest.fixture
def registry(store):
    return Registry(store)


@pytest.fixture
def good(make_config, fill_parameters):
    """Two models that restore differently."""
    return [fill_parameters(InstructIPT(make_config()), seed, 0.1) for seed in (1, 2)]


def test_the_model_changes_with_the_alias_and_stays_when_the_store_is_away(request, registry, good, monkeypatch):
    first, events = registry.add(OURS, good[0]), []
    watcher = Watcher(ALIAS, "cpu", 2, 1000.0, lambda event, **values: events.append((event, values)))
    request.addfinalizer(watcher.end)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    loaded = watcher.loaded
    assert loaded.version == first
    before = restore_tasks(loaded.model, image, ["denoise"])
    watcher.look()
    assert watcher.loaded is loaded
    second = registry.add(OURS, good[1])
    watcher.look()
    assert watcher.loaded.version == second
    assert not np.array_equal(restore_tasks(watcher.loaded.model, image, ["denoise"]), before)
    with loaded.own() as one, loaded.own() as other:  # who took the old one still has it
        assert one is not other
        assert np.array_equal(restore_tasks(one, image, ["denoise"]), before)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    watcher.look()
    assert watcher.loaded.version == second
    assert [event for event, _ in events] == ["model", "model_failed"]
    assert (events[1][1]["kept"], events[1][1]["wanted"]) == (second, ALIAS)
    assert "MLflow at http://127.0.0.1:9: " in events[1][1]["error"]
    assert "\n" not in events[1][1]["error"]


def test_versions_that_are_none_of_ours_are_told_and_a_later_good_one_is_served(request, registry, good):
    first, events = registry.add(OURS, good[0]), queue.Queue()
    watcher = Watcher(ALIAS, "cpu", 1, 0.02, lambda event, **values: events.put((event, values)))
    request.addfinalizer(watcher.end)
    for mlmodel in NONE_OF_OURS.values():
        wanted, values = registry.add(mlmodel), {}
        while values.get("wanted") != wanted:  # the one before may be told once more
            event, values = events.get(timeout=20)
            assert (event, values["kept"], watcher.loaded.version) == ("model_failed", first, first)
            assert values["error"].startswith(("ValueError: ", "CheckpointError: "))
            assert "dvc repro register" in values["todo"]
    last = registry.add(OURS, good[1])
    while (told_last := events.get(timeout=20))[0] == "model_failed":
        assert told_last[1]["kept"] == first
    assert told_last == ("model", {"version": last})
    assert watcher.loaded.version == last


def test_a_failure_that_nobody_thought_of_is_told_too(request, registry, good, monkeypatch):
    first, events = registry.add(OURS, good[0]), queue.Queue()
    watcher = Watcher(ALIAS, "cpu", 1, 0.02, lambda event, **values: events.put((event, values)))
    request.addfinalizer(watcher.end)
    with monkeypatch.context() as patch:
        patch.setattr(InstructIPT, "from_pretrained", lambda name, device: {}["weights"])
        registry.add(OURS, good[1])
        for _ in range(3):  # the watch lives on
            event, values = events.get(timeout=20)
            assert (event, values["kept"], values["error"]) == ("model_failed", first, "KeyError: 'weights'")
    while events.get(timeout=20)[0] != "model":
        assert watcher.loaded.version == first


def test_versions_that_spoil_pictures_or_changed_are_told_and_a_later_good_one_is_served(
    request, registry, good, flip_bit
):
    first, events = registry.add(OURS, good[0]), []
    watcher = Watcher(ALIAS, "cpu", 1, 1000.0, lambda event, **values: events.append((event, values)))
    request.addfinalizer(watcher.end)
    black = copy.deepcopy(good[1])
    black.backbone.head.bias.data.fill_(-9.0)
    registry.add(OURS, black)
    watcher.look()
    changed = registry.add(OURS, good[1])
    checkpoint = registry.folder / "files-3" / "checkpoint"
    flip_bit(checkpoint / "model.safetensors")
    (checkpoint / CHECKSUMS).unlink()
    watcher.look()
    assert watcher.loaded.version == first
    assert [event for event, _ in events] == ["model_failed"] * 2
    assert events[0][1]["error"].startswith("CanaryError: canary: denoise: the restored picture shows nothing")
    told = f"CheckpointError: {changed}: SHA256SUMS: missing, registered with SHA-256 "
    assert events[1][1]["error"].startswith(told)
    assert "; model.safetensors: its SHA-256 is " in events[1][1]["error"]
    last = registry.add(OURS, good[1])
    watcher.look()
    assert (watcher.loaded.version, events[2:]) == (last, [("model", {"version": last})])


def test_a_version_without_hashes_is_served_with_a_sentence(request, registry, good):
    events = []
    for number in (1, 2):
        added = registry.add(OURS, good[0], hashed=False)
        if number == 1:
            watcher = Watcher(ALIAS, "cpu", 1, 1000.0, lambda event, **values: events.append((event, values)))
            request.addfinalizer(watcher.end)
        watcher.look()
        assert watcher.loaded.version == added
    assert [event for event, _ in events] == ["model_unchecked", "model_unchecked", "model"]
    for number in (1, 2):
        assert events[number - 1][1]["note"].startswith(f"models:/m/{number}: registered without hashes of its files, ")


def test_a_service_does_not_start_with_what_spoils_pictures(registry, good):
    good[0].backbone.head.bias.data.fill_(9.0)
    good[0].save_pretrained(registry.folder / "white")
    for model in (str(registry.folder / "white"), registry.add(OURS, good[0])):
        with pytest.raises(CanaryError, match="shows nothing"):
            load(model, "cpu", 1)


def test_what_really_happens_to_a_store_is_told_and_survived(request, registry, good):
    """A version deleted, a file missing, files of another's, the database damaged and empty: the model stays."""
    first, events = registry.add(OURS, good[0]), []
    watcher = Watcher(ALIAS, "cpu", 1, 1000.0, lambda event, **values: events.append((event, values)))
    request.addfinalizer(watcher.end)
    database = registry.folder / "mlflow.db"

    def refused(words: str) -> None:
        watcher.look()
        [(event, values)] = events
        assert (event, values["kept"], watcher.loaded.version) == ("model_failed", first, first)
        assert words in values["error"], values["error"]
        events.clear()

    def delete_version() -> None:
        with tracking("test") as client:
            client.delete_model_version("m", registry.add(OURS, good[1]).rpartition("/")[2])

    delete_version()  # its alias goes with it
    refused("alias champion not found")
    registry.add(OURS, good[1])
    (registry.folder / f"files-{registry.count}/checkpoint/model.safetensors").unlink()
    refused("model.safetensors: missing, registered with")
    registry.add(OURS, good[1])
    weights = registry.folder / f"files-{registry.count}/checkpoint/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    refused("model.safetensors: its SHA-256 is")
    registry.add(OURS, good[1])
    shutil.rmtree(registry.folder / f"files-{registry.count}")
    refused("No such artifact")
    kept = database.read_bytes()
    for damaged in (b"no database" * 999, b""):
        database.write_bytes(damaged)
        refused("MLflow at sqlite:")
    database.write_bytes(kept)
    second = registry.add(OURS, good[1])
    watcher.look()
    assert events == [("model", {"version": second})]
