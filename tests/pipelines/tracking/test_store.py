"""Tracking, with real MLflow on SQLite: one run that goes on; a store away costs a message."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow.entities import Metric

from pipelines.common.params import load_params
from pipelines.tracking.live_run import LiveRun
from pipelines.tracking.store import (
    RUN_KEY,
    TrackingError,
    experiment_id,
    git_commit,
    log_metrics,
    log_missing,
    params_of,
    tracking,
    tracking_uri,
)

AWAY = "http://127.0.0.1:9"
PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def find(name: str) -> list:
    with tracking("test") as client:
        experiments = [experiment_id(client, PARAMS.register.experiment)]
        return client.search_runs(experiments, f"tags.`{RUN_KEY}` = '{name}'")


def curve(run_id: str, name: str) -> list[tuple[int, float]]:
    with tracking("test") as client:
        return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


def test_the_default_store_is_in_the_repository_and_the_environment_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_uri() == "http://127.0.0.1:9"


def test_an_experiment_in_a_copy_has_the_store_of_the_repository_it_was_started_from(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = tmp_path / ".dvc/tmp/exps/tmpabc"
    for folder, repository in (
        (copy, tmp_path),
        (copy / ".dvc/tmp/exps/tmpdef", tmp_path),
        (tmp_path / "exps/tmpabc", tmp_path / "exps/tmpabc"),
        (tmp_path / ".dvc/tmp/exps", tmp_path / ".dvc/tmp/exps"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        assert tracking_uri() == f"sqlite:///{repository}/mlflow.db"
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    assert tracking_uri() == AWAY


@pytest.mark.slow
def test_what_dvc_runs_in_a_copy_is_logged_in_the_repository(empty_store, tmp_path):
    """Real DVC: a stage that logs, run by `dvc exp run --temp`."""
    code = """
from pathlib import Path
from pipelines.tracking.store import experiment_id, tracking
with tracking("test") as client:
    run = client.create_run(experiment_id(client, "some"))
    client.log_text(run.info.run_id, Path.cwd().as_posix(), "folder.txt")
Path("made.txt").write_text("made")
"""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "stage.py").write_text(code)
    (tmp_path / "dvc.yaml").write_text("stages: {some: {cmd: python stage.py, deps: [stage.py], outs: [made.txt]}}")
    (tmp_path / ".gitignore").write_text("mlflow.db\nmlartifacts\nmade.txt\n")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MLFLOW", "DVC", "GIT"))} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    for words in (
        "git init -q",
        "dvc init -q",
        "git add -A",
        "git -c user.name=t -c user.email=t@t commit -qm start",
        "dvc exp run --temp",
    ):
        done = subprocess.run(words.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (written,) = tmp_path.glob("mlartifacts/**/folder.txt")
    copy = Path(written.read_text())
    assert tmp_path / ".dvc/tmp/exps" in copy.parents
    assert not copy.exists()  # and what was in it is gone


def test_artifacts_of_a_local_experiment_lie_beside_it(store):
    with tracking("test") as client:
        made = experiment_id(client, "some")
        assert experiment_id(client, "some") == made
        assert client.get_experiment(made).artifact_location == f"file://{store}/mlartifacts"


def test_a_live_run_logs_all_params_tags_and_metrics(store):
    with LiveRun(PARAMS, "train-a") as live:
        live.log(20, {"loss": 0.5, "loss/derain": 0.25})
        live.log(40, {"loss": 0.4})
    (run,) = find("train-a")
    assert run.info.run_id == live.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "train-a")
    assert run.data.params == params_of(PARAMS)
    assert run.data.tags["git_commit"]
    assert curve(live.run_id, "loss") == [(20, 0.5), (40, 0.4)]
    assert curve(live.run_id, "loss/derain") == [(20, 0.25)]


def test_an_unfinished_run_of_the_same_name_goes_on_and_a_finished_one_does_not(store):
    def stop():
        with LiveRun(PARAMS, "train-a") as live:
            live.log(1, {"loss": 3.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    (failed,) = find("train-a")
    assert failed.info.status == "FAILED"
    with LiveRun(PARAMS, "train-b") as other:
        pass
    with LiveRun(PARAMS, "train-a") as again:
        again.log(2, {"loss": 2.0})
    assert again.run_id == failed.info.run_id != other.run_id
    assert curve(again.run_id, "loss") == [(1, 3.0), (2, 2.0)]
    with LiveRun(PARAMS, "train-a") as anew:
        pass
    assert anew.run_id != again.run_id
    assert len(find("train-a")) == 2


def test_a_run_goes_on_also_where_params_that_do_not_name_it_changed(store, capsys):
    def stop():
        with LiveRun(PARAMS, "train-a"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    more = dataclasses.replace(PARAMS, ray=dataclasses.replace(PARAMS.ray, workers=2))
    with LiveRun(more, "train-a") as live:
        live.log(2, {"loss": 2.0})
    assert capsys.readouterr().err == ""
    assert curve(live.run_id, "loss") == [(2, 2.0)]


def test_a_server_that_is_away_costs_a_message_and_little_time(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    started = time.monotonic()
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0})
        live.log(2, {"loss": 1.0})
    assert live.run_id is None
    assert time.monotonic() - started < 30
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"train: no live tracking (MLflow at {AWAY}: ")
    assert first.endswith("); training goes on and tries again")
    assert last == (
        f"train: {AWAY} is away: there is no run of train-a, it lacks 2 values of steps 1 to 2, and its end; "
        "when it is back, `dvc repro register` logs what is missing"
    )


def test_values_that_could_not_be_logged_are_logged_when_the_store_is_back(store, monkeypatch, capsys):
    monkeypatch.setattr("pipelines.tracking.live_run.RETRY", 0)
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
        live.log(2, {"loss": 2.0})
        live.log(3, {"loss": 3.0})
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        live.log(4, {"loss": 4.0})
        assert curve(live.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    told = capsys.readouterr().err.splitlines()
    assert [line[:22] for line in told] == ["train: no live trackin", "train: MLflow is back,"]
    assert find("train-a")[0].info.status == "FINISHED"


def test_a_store_that_comes_back_for_the_end_has_it_all(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0})
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert curve(live.run_id, "loss") == [(1, 1.0)]
    assert [run.info.run_id for run in find("train-a")] == [live.run_id]
    assert find("train-a")[0].info.status == "FINISHED"


def test_what_a_store_that_stays_away_lacks_is_told_and_can_be_added(store, monkeypatch, capsys):
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
        live.log(2, {"loss": 2.0, "rate": 5.0})
        live.log(7, {"loss": 3.0})
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == (
        f"train: {AWAY} is away: run {live.run_id} lacks 3 values of steps 2 to 7, and its end; "
        "when it is back, `dvc repro register` logs what is missing"
    )
    assert curve(live.run_id, "loss") == [(1, 1.0)]
    with tracking("test") as client:
        rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0, "rate": 5.0}, {"step": 7, "loss": 3.0}]
        assert log_missing(client, live.run_id, rows) == 3


def test_another_thread_logs_into_the_same_run(store):
    with LiveRun(PARAMS, "train-a") as live:
        thread = threading.Thread(target=live.log, args=(1, {"loss": 1.0}))
        thread.start()
        thread.join()
    assert curve(live.run_id, "loss") == [(1, 1.0)]
    with tracking("test") as client:
        everything = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.info.run_id for run in everything] == [live.run_id]


def test_a_metric_that_is_sent_twice_is_there_once(store):
    with LiveRun(PARAMS, "train-a") as live, tracking("test") as client:
        log_metrics(client, live.run_id, [Metric("loss", 1.0, 5, 1)] * 2)
        log_metrics(client, live.run_id, [Metric("loss", 1.0, 5, 1)])
    assert curve(live.run_id, "loss") == [(1, 1.0)]


def test_a_failure_says_which_store_and_what_to_run_when_it_is_back(store):
    message = rf"^MLflow at sqlite:///{store}/mlflow\.db: (?s:.*)\nWhen it is back: `dvc repro register`$"
    with pytest.raises(TrackingError, match=message), tracking("`dvc repro register`") as client:
        client.get_run("0" * 32)


def test_only_missing_values_are_logged(store):
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0, "rate": 5.0})
        live.log(3, {"loss": 3.0})
    rows = [
        {"step": 1, "loss": 9.0, "rate": 9.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 9.0, "rate": 6.0},
    ]
    with tracking("test") as client:
        assert log_missing(client, live.run_id, rows) == 2
        assert log_missing(client, live.run_id, rows) == 0
    assert curve(live.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert curve(live.run_id, "rate") == [(1, 5.0), (3, 6.0)]


def test_more_values_than_one_request_holds_are_all_logged(store):
    with LiveRun(PARAMS, "train-a") as live:
        pass
    with tracking("test") as client:
        rows = [{"step": step, "loss": float(step), "rate": 1.0} for step in range(400)]
        assert log_missing(client, live.run_id, rows) == 800
    assert len(curve(live.run_id, "loss")) == len(curve(live.run_id, "rate")) == 400


def test_params_are_flat_and_complete():
    flat = params_of(PARAMS)
    assert flat["train.steps"] == str(PARAMS.train.steps)
    assert flat["tasks.derain.share"] == "1"
    assert flat["seed"] == "0"
    assert all(len(value) <= 6000 for value in flat.values())


def test_the_commit_is_unknown_outside_of_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == "unknown"
    monkeypatch.chdir(Path(__file__).parent)
    assert len(git_commit().removesuffix("-dirty")) == 40
    monkeypatch.setenv("PATH", "")
    assert git_commit() == "unknown"


def test_code_and_params_make_a_commit_dirty_what_a_run_writes_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("code.py", "params.yaml", "dvc.lock", "metrics/train.json", "plots/loss.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("1")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *words], check=True)
    for name in ("dvc.lock", "metrics/train.json", "plots/loss.csv", "new.txt"):
        Path(name).write_text("2")
    assert len(git_commit()) == 40
    for name in ("code.py", "params.yaml"):
        Path(name).write_text("2")
        assert git_commit().endswith("-dirty")
        Path(name).write_text("1")
