"""MLflow stores, and the service in a process of its own, for tests of the pipeline."""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def _float32(without_bf16):
    pass


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables: making them takes longer than a test."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)  # so that what MLflow sets there is undone
        mlflow.set_tracking_uri(uri)
        mlflow.MlflowClient().search_experiments()
        yield folder / "mlflow.db"


@pytest.fixture
def store(empty_store, tmp_path, monkeypatch):
    """The default store of a repository that stands in `tmp_path`."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def flip_bit():
    """Change one bit in the middle of a file."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return flip


class Running:
    """A service by its port and process, and the folder that it stands in."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen) -> None:
        self.folder, self.port, self.process = folder, port, process

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def restore(self, image: bytes, **wish: object) -> tuple[int, dict, bytes]:
        fields = {"image": base64.b64encode(image).decode(), **wish}
        return self.ask("POST", "/restore", json.dumps(fields).encode(), Content_Type="application/json")

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="session")
def serving():
    """A context manager: `python -m pipelines.serve` in a folder, the current one, ready; its options by name."""
    return start_service


@contextmanager
def start_service(folder: Path, **options: object) -> Iterator[Running]:
    shutil.copy(ROOT / "params.yaml", folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.serve", "--port", str(port), "--precision", "fp32"]
    command += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with open(folder / "log.jsonl", "w") as log, open(folder / "messages.txt", "w") as messages:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"  # where a test may put a sitecustomize.py
        process = subprocess.Popen(command, stdout=log, stderr=messages, env=environment)
    service = Running(folder, port, process)
    try:
        until = time.monotonic() + 120
        while not service.is_ready():
            assert process.poll() is None, (folder / "messages.txt").read_text()
            assert time.monotonic() < until, "the service never became ready"
            time.sleep(0.3)
        yield service
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
