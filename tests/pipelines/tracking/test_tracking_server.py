"""Everything against a real `mlflow server` on SQLite: training that outlives it, registration, promotion, rollback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.network.modulation import modulated_layers
from ipt.pixels import to_levels
from pipelines.common.params import load_params
from pipelines.data.png import encode_png
from pipelines.data.rows import SHARD_COLUMNS, row_schema, write_rows
from pipelines.registry import registration as registry
from pipelines.registry.registration import Measured, Registration, register_model
from pipelines.tracking.live_run import LiveRun
from pipelines.tracking.store import log_missing, tracking

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "params.yaml")
TASKS = tuple(PARAMS.tasks)


class Server:
    """`mlflow server` in a folder of its own, that can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri, self._folder, self._process = f"http://127.0.0.1:{self.port}", folder, None

    def start(self) -> None:
        command = f"""{sys.executable} -m mlflow server --backend-store-uri sqlite:///{self._folder}/server.db
            --artifacts-destination {self._folder}/artifacts --host 127.0.0.1 --port {self.port} --workers 1"""
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command.split(), cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                return
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.2)
        raise AssertionError("mlflow server did not start")

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    (tmp_path / "project").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.chdir(tmp_path / "project")
    yield server
    server.kill()
    mlflow.set_tracking_uri(None)


def curve(run_id: str) -> list[tuple[int, float]]:
    with tracking("test") as client:
        return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, "loss"))


def test_a_server_killed_and_restarted_in_the_middle_of_a_run_loses_nothing(server, monkeypatch, capsys):
    monkeypatch.setattr("pipelines.tracking.live_run.RETRY", 0)
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0})
        server.kill()
        live.log(2, {"loss": 2.0})
        server.start()
        live.log(3, {"loss": 3.0})
    assert curve(live.run_id) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    with tracking("test") as client:
        assert client.get_run(live.run_id).info.status == "FINISHED"
    told = capsys.readouterr().err
    assert "no live tracking" in told
    assert "MLflow is back, and all values are logged" in told


def test_a_server_that_stays_away_is_filled_up_later(server, capsys):
    with LiveRun(PARAMS, "train-a") as live:
        live.log(1, {"loss": 1.0})
        server.kill()
        live.log(2, {"loss": 2.0})
    assert f"run {live.run_id} lacks 1 values of steps 2 to 2, and its end" in capsys.readouterr().err
    server.start()
    with tracking("test") as client:
        assert log_missing(client, live.run_id, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]) == 1
    assert curve(live.run_id) == [(1, 1.0), (2, 2.0)]


def brighter(make_config, levels: float, worse: str | None = None) -> InstructIPT:
    """A model that adds `levels` grey levels to every picture, but for one task's bias that is damaged."""
    model = InstructIPT(make_config(tasks=TASKS, layers=("head",))).eval()
    with torch.no_grad():
        model.backbone.head.bias.fill_(levels / 255)
        model.estimator.score.bias[-1] = 9
        for layer in modulated_layers(model.backbone).values():
            if worse:
                layer.task_up[model.task_index(worse)] = 0.3
    return model


def register(model: InstructIPT, folder: Path) -> int:
    save_model(model, folder)
    if not Path("ipt").exists():
        Path("ipt").symlink_to(ROOT / "ipt")  # goes into the registered model
    return register_model(
        Registration(
            run_name=folder.name, run_id=None, params=PARAMS, rows=[{"step": 1, "loss": 0.5}], learnt_from=[],
            summary=[Measured({"a": 1.0})], reports=[], checkpoint=folder,
            code=Path(registry.__file__).with_name("pyfunc.py"), requirements=["torch"],
            example=None, card="# card\n", tags={}, model=PARAMS.register.model,
            signature=registry.signature(), again="the same",
        )
    )["version"]  # fmt: skip


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.promote", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def served(image: bytes) -> bytes:
    """What the champion makes of a picture, through MLflow alone."""
    model = mlflow.pyfunc.load_model(f"models:/{PARAMS.register.model}@{PARAMS.promote.alias}")
    return model.predict(pd.DataFrame({"image": [image], "task": ["derain"]}))["image"][0]


def test_register_refuse_promote_and_roll_back(server, make_config):
    text = (ROOT / "params.yaml").read_text()
    floors = ("instructions: 0.8 ", "instructions: 0.0 "), ("seen: 0.5 ", "seen: 0.0 ")
    for given, wanted in (*floors, ("growth: 1.5 ", "growth: 100 ")):  # a busy machine decides nothing
        assert given in text
        text = text.replace(given, wanted)
    Path("params.yaml").write_text(text)
    rng = np.random.default_rng(0)
    for task in TASKS:
        clean = rng.integers(60, 200, (16, 16, 3)).astype(np.float32) / 255
        row = {
            "task": task, "image_id": "a", "variant": 0, "degraded": to_levels(clean - 10 / 255),
            "clean": to_levels(clean), "height": 16, "width": 16, "instruction": "", "severity": "{}", "seed": 0,
        }  # fmt: skip
        folder = Path("data/shards") / task / "val"
        folder.mkdir(parents=True)
        write_rows(folder / "00000.parquet", [row], row_schema(SHARD_COLUMNS, 16, 16), row_group_rows=1)

    picture = encode_png(row["degraded"])
    assert register(brighter(make_config, 5), Path("first")) == 1
    done = command()
    assert done.returncode == 0, done.stderr
    first = served(picture)

    assert register(brighter(make_config, 5, worse="derain"), Path("damaged")) == 2
    done = command()
    assert done.returncode == 1
    assert done.stderr == "promote: version 2 is refused: psnr/derain, psnr/mean\n"
    assert served(picture) == first

    assert register(brighter(make_config, 10), Path("better")) == 3
    done = command()
    assert done.returncode == 0, done.stdout + done.stderr
    better = served(picture)
    assert better != first

    assert command("--rollback").returncode == 0
    assert served(picture) == first
    assert command("--rollback").returncode == 0
    assert served(picture) == better


def test_a_server_that_is_away_is_named_with_what_to_do(server):
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    server.kill()
    done = command("--rollback")
    assert done.returncode == 1
    assert f"MLflow at {server.uri}: " in done.stderr
    assert "When it is back: `python -m pipelines.promote` again" in done.stderr
