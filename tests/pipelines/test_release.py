"""The params of a release, what is refused before hours of training, and how a finished one is shipped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from degradations.recipe import check_recipe
from ipt.model import InstructIPT
from ipt.network.config import preset_config
from pipelines.common.params import load_params
from pipelines.registry.versions import registered
from pipelines.release import OVERLAY, decay, overlay_values, ship, start, write_overlaid
from pipelines.tracking.store import tracking

ROOT = Path(__file__).parents[2]


def test_blocks_go_over_blocks_key_by_key_and_anything_else_whole():
    tree = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    overlay_values(tree, {"a": {"y": [9], "z": {"new": 1}}, "b": {"c": 4}})
    assert tree == {"a": {"x": 1, "y": [9], "z": {"new": 1}}, "b": {"c": 4}}


def test_a_block_that_names_all_keys_gives_their_order(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("tasks:\n  denoise: {share: 1}  # noise\n  derain: {share: 2}\nseed: 0\n")
    write_overlaid(path, {"tasks": {"dejpeg": {"share": 3}, "derain": {}}})
    assert list(YAML().load(path.read_text())["tasks"]) == ["denoise", "derain", "dejpeg"]
    write_overlaid(path, {"tasks": {"dejpeg": {}, "denoise": {}, "derain": {"share": 4}}})
    expected = {"dejpeg": {"share": 3}, "denoise": {"share": 1}, "derain": {"share": 4}}
    found = YAML().load(path.read_text())["tasks"]
    assert (found, list(found)) == (expected, list(expected))
    assert "# noise" in path.read_text()


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


def test_more_tasks_fit_the_released_model(released):
    write_overlaid(released, YAML().load((ROOT / "params.more_tasks.yaml").read_text()))
    params, known = load_params(released), InstructIPT.from_pretrained().config
    assert set(params.tasks) == {*known.tasks, *params.train.learn}
    assert [task for task in params.tasks if task in known.tasks] == list(known.tasks)
    for name in params.train.learn:
        check_recipe(params.tasks[name].recipe, name)
    pinned = params.modulation
    assert isinstance(pinned.rank, int)
    assert isinstance(pinned.layers, tuple)
    asked = preset_config(params.model.preset, known.tasks, pinned.rank, pinned.layers)
    assert asked == known


def test_overlays_go_over_the_release_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.release.call", lambda *words: None)
    monkeypatch.chdir(ROOT)
    for number in (1, 2):
        (tmp_path / f"{number}.yaml").write_text(f"seed: {number}\ntrain:\n  steps: {number}\n")
    (tmp_path / "photos").mkdir()
    start(tmp_path / "release", tmp_path / "photos", [tmp_path / "2.yaml", tmp_path / "1.yaml"])
    params = load_params(tmp_path / "release" / "params.yaml")
    assert (params.seed, params.train.steps, params.train.decay_steps) == (1, 1, 0)


def test_a_release_needs_photographs(tmp_path):
    for photographs in (None, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"--photographs .*: expected a folder of clean photographs"):
            start(tmp_path / "release", photographs)
    assert not (tmp_path / "release").exists()


def test_one_that_was_ended_while_it_began_is_not_begun(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(ROOT)

    def ended(path, overlay):
        assert (path.parent / ".git").is_dir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.release.call", lambda *words: None)
        patch.setattr("pipelines.release.write_overlaid", ended)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "release", tmp_path / "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    (tmp_path / "release").mkdir()
    (tmp_path / "release/diary.txt").touch()
    with pytest.raises(FileExistsError, match="release: has files and is no release"):
        start(tmp_path / "release", tmp_path / "photos")
    assert (tmp_path / "release/diary.txt").is_file()


def test_one_that_is_begun_keeps_its_photographs(released, tmp_path):
    with pytest.raises(FileExistsError, match="is begun already"):
        start(tmp_path, tmp_path)


def test_going_on_links_the_data_and_touches_nothing_that_decay_made(released, monkeypatch):
    called = []
    monkeypatch.setattr("pipelines.release.call", lambda folder, *words: called.append((folder, *words)))
    start(released.parent, None)
    [checkout] = [words for words in called if words[1] == "dvc"]
    assert checkout[-2:] == ("prepare", "synthesize")
    assert called[-1] == (released.parent, "pipelines.repro", "train")


def test_nothing_is_finished_that_was_not_begun(tmp_path):
    with pytest.raises(FileNotFoundError, match="no release was begun here"):
        decay(tmp_path)


@pytest.fixture
def finished(empty_store, tmp_path, monkeypatch, make_config, fill_parameters):
    """A folder in which a model was finished and registered, its model, and an empty folder where one stands."""
    folder, here = tmp_path / "release", tmp_path / "here"
    for place in (folder, here):
        place.mkdir()
        shutil.copy(empty_store, place / "mlflow.db")
        shutil.copy(ROOT / "params.yaml", place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model = fill_parameters(InstructIPT(make_config()), 0, 0.1)
    (folder / "metrics").mkdir()
    score = {"compressed": {"psnr": 30.5, "ssim": 0.91}}
    (folder / "metrics/evaluate.json").write_text(json.dumps({"tasks": {"derain": score}, "real_pairs": {}}))
    monkeypatch.chdir(folder)
    with tracking("test") as client:
        experiment = client.create_experiment("some", artifact_location=(folder / "mlartifacts").as_uri())
        run = client.create_run(experiment).info.run_id
        client.log_text(run, "# the card\n", "MODEL_CARD.md")
        files = folder / "logged"
        model.save_pretrained(files / "checkpoint")
        (files / "MLmodel").write_text("flavors: {python_function: {artifacts: {checkpoint: {path: checkpoint}}}}\n")
        client.create_registered_model("instruct-ipt")
        version = client.create_model_version("instruct-ipt", files.as_uri(), run).version
    (folder / "metrics/register.json").write_text(json.dumps({"model": "instruct-ipt", "version": int(version)}))
    monkeypatch.chdir(here)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder, model


def test_what_is_shipped_is_what_was_registered_and_is_a_version_here(finished, monkeypatch):
    folder, model = finished
    Path("ipt/released").mkdir(parents=True)
    Path("ipt/released/old.bin").write_bytes(b"x")
    for _ in range(2):  # a second time it is there already
        ship(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it, for processes of its own
        found = sorted(path.name for path in Path("ipt/released").iterdir())
        assert found == ["README.md", "SHA256SUMS", "config.json", "model.safetensors"]
        with registered("instruct-ipt", "champion", "test") as here:
            assert here.aliases() == {"release": 1}
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shipped, weights = InstructIPT.from_pretrained("ipt/released").state_dict(), model.state_dict()
    assert all(torch.equal(shipped[name], value) for name, value in weights.items())
    registry = InstructIPT.from_pretrained("models:/instruct-ipt@release").state_dict()
    assert all(torch.equal(registry[name], value) for name, value in weights.items())


def test_in_a_registry_that_both_share_the_version_gets_the_alias(finished, monkeypatch):
    folder, _ = finished
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    ship(folder)
    with registered("instruct-ipt", "champion", "test") as there:
        assert there.aliases() == {"release": 1}
        with pytest.raises(ValueError, match="expected one of the versions 1; got 2"):
            there.version(2)


def test_the_card_that_is_shipped_is_one_that_hubs_read(finished):
    ship(finished[0])
    card = ModelCard.load("ipt/released/README.md")
    assert card.text.strip() == "# the card"
    assert card.data.pipeline_tag == "image-to-image"
    (psnr, ssim) = card.data.eval_results
    assert (psnr.dataset_name, psnr.metric_type, psnr.metric_value) == ("derain", "psnr", 30.5)
    assert (ssim.metric_type, ssim.metric_value) == ("ssim", 0.91)


def test_nothing_is_shipped_that_was_not_finished(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is finished there; first: make release-decay"):
        ship(tmp_path)


def test_where_shipping_fails_half_way_the_model_of_before_stays_whole(finished, monkeypatch):
    ship(finished[0])
    before = {path.name: path.read_bytes() for path in Path("ipt/released").iterdir()}
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write = Path.write_bytes

    def full(path, content):
        if path.name == "model.safetensors":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        ship(finished[0])
    assert {path.name: path.read_bytes() for path in Path("ipt/released").iterdir()} == before
    assert [path.name for path in Path("ipt").iterdir()] == ["released"]


AT_WORK = """
import os, pathlib, sys, time
pathlib.Path("at_work").write_text(str(os.getpid()))
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path("stopped").touch()
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_trains_has_what_all_others_leave_and_ends_with_its_command(tmp_path, number):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/repro.py").write_text(AT_WORK)
    (tmp_path / "params.yaml").touch()
    started = "release.start = lambda folder, *given: release.call(folder, 'pipelines.repro')"
    code = f"import sys, pipelines.release as release; {started}; release.main()"
    release = subprocess.Popen(
        [sys.executable, "-c", code, "start", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not (tmp_path / "at_work").is_file() or not (tmp_path / "at_work").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    at_work = int((tmp_path / "at_work").read_text())
    assert os.getpriority(os.PRIO_PROCESS, at_work) == 19
    group = Path(f"/proc/{at_work}/autogroup")
    if group.is_file():
        assert group.read_text().endswith("nice 19\n")
        assert group.read_text() != Path("/proc/self/autogroup").read_text()
    release.send_signal(number)
    assert "release: stopped; the same command goes on" in release.communicate()[1]
    assert release.returncode == 130
    assert (tmp_path / "stopped").is_file()
