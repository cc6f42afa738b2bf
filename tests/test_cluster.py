"""Several Ray nodes: they share nothing but the storage, they die, and the work goes on."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request

import pandas as pd
import pytest
from projects import Project, toy
from pyarrow.fs import FileSelector, FileSystem

from benchmarks.local_cluster import LocalCluster
from benchmarks.watched_training import Training
from ipt.network.checkpoint import sha256
from pipelines.common.manifest import read_manifest

pytestmark = pytest.mark.slow

STEPS = 60


def toy_on_cluster(tree) -> None:
    toy(tree)
    tree["train"].update(steps=STEPS, checkpoint_every=10, log_every=2, validate_every=STEPS)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"))
    project.edit(toy_on_cluster)
    return project


@pytest.fixture
def storage(request, tmp_path):
    """What all nodes see: a folder, or an object store where a test asks for it."""
    if getattr(request, "param", "folder") == "folder":
        return str(tmp_path / "shared")
    return f"{request.getfixturevalue('s3').uri}/ipt"


@pytest.fixture
def cluster(project, storage, tmp_path, monkeypatch):
    """The driver's node without room for work, and two others that do not see the checkout."""
    try:
        cluster = LocalCluster(tmp_path / "nodes", 0, hidden=project.folder)
    except RuntimeError as error:
        pytest.skip(f"NO NAMESPACES: nodes that share only the storage are not tested; {error}")
    monkeypatch.setattr(project, "token", cluster.token)
    with cluster:
        cluster.add(1)
        cluster.add(1)
        settings = {"address": cluster.address, "storage": storage, "workers": [1, 2]}
        project.edit(lambda tree: tree["ray"].update(settings))
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(project):
    """Loss by step of the same training on this machine alone, which makes what the tests of faults begin with."""
    project.edit(lambda tree: tree["ray"].update(address="local", storage="runs", workers=2))
    project.repro("train")
    return losses(project)


def losses(project) -> pd.Series:
    return pd.read_csv(project.folder / "plots/loss.csv").set_index("step")["loss"]


def test_nodes_that_share_only_the_storage_make_the_same(project, undisturbed, cluster, storage):
    """The whole pipeline from nothing: the same shards to the byte, in the storage; the same training to the digit."""
    locked, folder = (project.folder / "dvc.lock").read_text(), project.folder / "data/shards"
    shards = {f"{task}/{name}": hashed for task in ("denoise", "derain") for name, hashed in hashes(folder / task)}
    (project.folder / "dvc.lock").unlink()
    output = project.repro("--force")
    files = {f"{task}/{file.name}": file for task in ("denoise", "derain") for file in read_manifest(folder / task)}
    assert {name: file.sha256 for name, file in files.items()} == shards
    assert [path.name for path in folder.glob("*/*")] == ["manifest.jsonl"] * 2
    assert losses(project).equals(undisturbed)
    assert project.json("metrics/register.json")["version"] == 1
    assert "waiting for nodes" not in output
    assert "analyze: on one of the cluster's nodes, CPUs: 1, GPUs: 0" in output
    check_one_process_measures_the_same(project)
    stored = (project.folder / "dvc.lock").read_text()
    for lock, count in ((locked, 0), (stored, 2)):  # what was before, and this again
        put_back(project, lock)
        told = project.call(sys.executable, "-m", "pipelines.storage", "check").stdout
        assert len(re.findall(r"data/shards/\w+: all \d+ files are there", told)) == count
    lost = files["derain/train/00000.parquet"]
    FileSystem.from_uri(storage)[0].delete_file(f"{storage}/{lost.address}")
    done = project.call(sys.executable, "-m", "pipelines.train", check=False)
    assert len(re.findall("worker 0 failed: ", done.stdout)) == 1  # it was not started again: that mends no data
    assert re.search(r"error: .*: damaged shard \(.*`dvc repro -f -s synthesize@derain`$", done.stderr.strip())
    project.call("dvc", "repro", "-f", "-s", "synthesize@derain")
    assert "derain: all" in project.call(sys.executable, "-m", "pipelines.storage", "check", "--read").stdout
    assert (project.folder / "dvc.lock").read_text() == stored
    put_back(project, locked)


def hashes(folder):
    for path in folder.rglob("*.parquet"):
        yield path.relative_to(folder).as_posix(), sha256(path)


def put_back(project, lock: str) -> None:
    """What dvc.lock said before, and the shards that it names."""
    (project.folder / "dvc.lock").write_text(lock)
    project.call("dvc", "checkout", "--force", "data/shards/denoise", "data/shards/derain")


def check_one_process_measures_the_same(project):
    """What nodes have looked at and measured is to the digit what this process does."""
    names = ("models/understanding/estimator.safetensors", "metrics/understand.json", "metrics/evaluate.json")
    made = {name: (project.folder / name).read_bytes() for name in names}
    before = (project.folder / "params.yaml").read_text()
    project.edit(lambda tree: tree["ray"].update(address="local"))
    for stage in ("understand", "evaluate"):
        project.call(sys.executable, "-m", f"pipelines.{stage}")
    (project.folder / "params.yaml").write_text(before)
    assert {name: (project.folder / name).read_bytes() for name in names} == made


def test_a_token_of_others_and_a_storage_that_nodes_do_not_share_are_told(project, cluster, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(project, "token", "0" * 64)
        done = project.call(sys.executable, "-m", "pipelines.synthesize", "--task", "denoise", check=False)
        assert done.returncode == 1
        assert re.search(r"error: the Ray cluster at [\d.:]+ asks for a token, and none or another was", done.stderr)
        assert "Traceback" not in done.stderr
    # Inside of the checkout, which is hidden from the nodes.
    project.edit(lambda tree: tree["ray"].update(storage=str(project.folder / "runs")))
    done = project.call(sys.executable, "-m", "pipelines.synthesize", "--task", "denoise", check=False)
    assert done.returncode == 1
    assert re.search(r"error: params.yaml.ray.storage: .*/runs is not shared: .*cannot be read on [\d.]+", done.stderr)
    assert "Traceback" not in done.stderr


def test_no_cluster_is_told(project, undisturbed):
    project.edit(lambda tree: tree["ray"].update(address="127.0.0.1:9"))
    done = project.call(sys.executable, "-m", "pipelines.synthesize", "--task", "denoise", check=False)
    assert done.returncode == 1
    assert "no Ray cluster at 127.0.0.1:9 (RAY_ADDRESS or params.yaml.ray.address)" in done.stderr
    assert "Traceback" not in done.stderr


# A worker alone: benchmarks/faults.py. With its node it dies here too.
@pytest.mark.parametrize(("victim", "storage"), [("node", "folder"), ("driver", "s3")], indirect=["storage"])
def test_training_goes_on_after_a_kill(project, undisturbed, cluster, storage, victim):
    training = Training(project.folder, cluster)
    training.wait_for(lambda: training.step >= 26)
    if victim == "node":
        cluster.kill(2)
    else:
        training.kill()
        training = Training(project.folder, cluster)
    output = training.end()
    found = re.search(r"continues from step (\d+) of 60, workers: (\d)", output)
    assert int(found.group(1)) % 10 == 0
    assert int(found.group(2)) == (1 if victim == "node" else 2)
    assert ("failed: " in output) == (victim != "driver")
    assert project.json("metrics/train.json")["restarts"] == 1
    assert 0 < project.json("metrics/train.json")["goodput"] < 1
    after = losses(project)
    assert after.index.tolist() == undisturbed.index.tolist()  # nothing lost, nothing twice
    if victim != "node":  # as many workers: the same to the digit
        assert after.equals(undisturbed)
    assert list((project.folder / "models/trained").iterdir())
    filesystem, path = FileSystem.from_uri(storage)
    # Nothing of the run, and no note of this checkout: its shards are its own, the storage has copies of them.
    assert [entry.base_name for entry in filesystem.get_file_info(FileSelector(path))] == ["data"]


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_training_waits_for_an_object_store_that_is_away(project, undisturbed, cluster, s3):
    project.edit(lambda tree: tree["ray"].update(groups_per_read=4))  # so it reads all the time
    training = Training(project.folder, cluster)
    training.wait_for(lambda: training.step >= 26)
    s3.leave()
    training.wait_for(lambda: "trying again for 600 s" in training.output)
    s3.come_back()
    output = training.end()
    assert re.search(r"train: storage s3://bucket/ipt: .*; trying again for 600 s", output)
    assert project.json("metrics/train.json")["restarts"] == 0, output
    assert losses(project).equals(undisturbed)


def test_a_node_dies_while_tiles_are_cut(project, cluster, monkeypatch):
    """What is left cuts them again: the same to the byte as one node that does all."""
    manifest = project.folder / "data/clean/manifest.jsonl"
    before = (project.folder / "params.yaml").read_text()
    project.edit(lambda tree: tree["prepare"].update(sources=[{"dead_leaves": {"images": 16, "size": 512}}]))
    try:
        running = project.start(sys.executable, "-m", "pipelines.prepare")
        while not cluster.processes(2, "ray::cut_heap"):
            assert running.poll() is None, running.stdout.read()
            time.sleep(0.05)
        cluster.kill(2)
        assert running.wait(300) == 0
        disturbed = manifest.read_bytes()
        manifest.unlink()
        project.call(sys.executable, "-m", "pipelines.prepare")
        assert manifest.read_bytes() == disturbed
    finally:
        (project.folder / "params.yaml").write_text(before)


def test_the_dashboard_shows_a_training(project, undisturbed, tmp_path):
    with LocalCluster(tmp_path, 2, dashboard=True) as cluster:
        project.edit(lambda tree: tree["ray"].update(address=cluster.address, storage="runs", workers=2))
        training = Training(project.folder, cluster, RAY_TRAIN_ENABLE_STATE_TRACKING="1")
        training.wait_for(lambda: training.step >= 2)
        assert "Ray Dashboard" in fetched(cluster, "")
        (run,) = json.loads(fetched(cluster, "/api/train/v2/runs/v1"))["train_runs"]
        training.end()
    assert run["name"].startswith("train-")
    assert run["status"] == "RUNNING"


def fetched(cluster: LocalCluster, path: str) -> str:
    asked = urllib.request.Request(cluster.dashboard + path, headers={"Authorization": f"Bearer {cluster.token}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.read().decode()
