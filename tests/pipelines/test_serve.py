"""The real service, in processes of its own with a real registry: hostile requests, and an alias that moves."""

import base64
import io
import json
import signal
import socket
import threading
import time
import zlib
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
from fuzz.seeds import harmful
from PIL import Image

from benchmarks.hostile_bodies import chunk, png
from ipt import restore_image
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.photos.photo import read_photo
from pipelines.registry import registration as registry
from pipelines.tracking.store import experiment_id, tracking

pytestmark = pytest.mark.slow
MAX_BODY = 1_000_000
HANGS = b"never read"
SITE = f"""
import importlib.util, sys, time

class Slow:  # puts itself before PIL.Image, in every process of the service
    def find_spec(self, name, path=None, target=None):
        if name != "PIL.Image":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            opened = module.open
            module.open = lambda file, *rest, **named: (
                time.sleep(600) if file.getvalue() == {HANGS!r} else opened(file, *rest, **named)
            )

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Slow())
"""
FORM = "multipart/form-data; boundary=b"


def encoded(seed: int = 0, size: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def running(make_config, fill_parameters, tmp_path_factory, serving):
    folder = tmp_path_factory.mktemp("service")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    models = {}
    with tracking("test") as client:
        experiment = experiment_id(client, "some")
        for number in (1, 2):
            models[f"models:/ipt/{number}"] = fill_parameters(InstructIPT(make_config()), number, 0.1).eval()
            save_model(models[f"models:/ipt/{number}"], folder / "model")
            with mlflow.start_run(experiment_id=experiment):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(registry.__file__).with_name("pyfunc.py")),
                    artifacts={"checkpoint": str(folder / "model")},
                    signature=registry.signature(),
                    pip_requirements=["torch"],
                )
            mlflow.register_model(logged.model_uri, "ipt")
        client.set_registered_model_alias("ipt", "champion", "1")
    (folder / "sitecustomize.py").write_text(SITE)
    with serving(
        folder,
        model="models:/ipt@champion",
        max_body=MAX_BODY,
        max_pixels=100_000,
        body_timeout=4,  # a busy machine is no slow sender
        queue=8,
        timeout=8,
        watch=0.5,
        threads=2,
    ) as service:
        service.models = models
        yield service
    patch.undo()


def assert_well(service) -> None:
    image = encoded(5)
    status, headers, content = service.restore(image, task="deblur")
    assert status == 200, content
    wanted = restore_image(service.models[headers["x-model"]], read_photo(image).levels, task="deblur")
    assert np.abs(read_photo(content).levels.astype(int) - wanted).max() <= 1


def memory(service) -> int:
    """Bytes that the service's processes hold for themselves."""
    processes = psutil.Process(service.process.pid).children(recursive=True)
    return sum(process.memory_full_info().uss for process in processes)


HARMFUL = [*harmful().values()]  # of all kinds of files


def hostile(rng: np.random.Generator, number: int) -> tuple[bytes, dict[str, str]]:
    """A body that is wrong in one of eleven ways, and its headers."""
    image, kind = encoded(number), number % 11
    paths = (
        "../../etc/passwd",
        "/etc/shadow",
        "..\\..\\x",
        "models:/ipt@champion",
        "file:///etc/passwd",
        "a\0b",
        "derain\n",
    )
    fields: dict = {"image": image}
    if kind == 0:  # huge dimensions
        fields["image"] = png(*(int(side) for side in rng.integers(400, 2**31, 2)))
    elif kind == 1:  # truncated
        fields["image"] = image[: int(rng.integers(1, len(image) - 40))]
    elif kind == 2:  # small files that unpack to much
        bomb = zlib.compress(bytes(10_000_000), 9)
        many = chunk(b"zTXt", b"a\0\0" + bomb) if number // 11 % 2 else chunk(b"iCCP", b"a\0\0" + bomb)
        fields["image"] = png(30_000, 30_000, many, chunk(b"IDAT", bomb))
    elif kind == 3:  # path-like names
        fields["task"] = paths[number // 11 % len(paths)]
    elif kind == 4:
        fields[paths[number // 11 % len(paths)]] = "x"
    elif kind == 5:  # wrong types
        wrong = [5, None, [1], {"a": 1}, True, 1e999, "x"]
        name = ("image", "task", "strength")[number // 11 % 3]
        fields[name] = wrong[number // 11 % len(wrong)] if name == "image" else [wrong[0]]
        return json.dumps(fields, default=lambda data: base64.b64encode(data).decode()).encode(), {
            "Content-Type": "application/json"
        }
    elif kind == 6:  # bytes of no meaning
        body = rng.bytes(int(rng.integers(0, 5000)))
        return body, {"Content-Type": (FORM, "application/json", "text/plain", "image/png")[number // 11 % 4]}
    elif kind == 7:
        return rng.bytes(MAX_BODY + 1), {"Content-Type": FORM}
    elif kind == 8:  # bytes changed in the first ones
        fields["image"] = bytes(8) + image[8:]
    elif kind == 9:
        fields["strength"] = ("-1", "nan", "1e99", "inf", "0x1", "much")[number // 11 % 6]
    else:
        fields["image"] = HARMFUL[number // 11 % len(HARMFUL)]
    parts = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"'.encode()
        + (b'; filename="../../x.png"\r\n\r\n' if name == "image" else b"\r\n\r\n")
        + (value if isinstance(value, bytes) else str(value).encode())
        + b"\r\n"
        for name, value in fields.items()
    )
    return parts + b"--b--\r\n", {"Content-Type": FORM}


def test_hostile_requests_get_a_reason_and_leave_the_service_well(running):
    rng = np.random.default_rng(0)
    before, held, statuses = set(running.folder.rglob("*")), 0, set()
    assert {image[:2] for image in HARMFUL} >= {b"II", b"RI", b"\xff\xd8", b"\x89P"}  # TIFF, WebP, JPEG, PNG
    for number in range(220):
        body, headers = hostile(rng, number)
        started = time.monotonic()
        status, _, content = running.ask("POST", "/restore", body, **headers)
        assert time.monotonic() - started < 10, number  # each takes some milliseconds on an idle machine
        assert 400 <= status < 500, (number, status, content[:300])
        assert content.count(b"\n") == 1
        assert len(json.loads(content)["error"]) > 10
        statuses.add(status)
        if number % 50 == 0:
            assert_well(running)
            held = memory(running) if number == 0 else held  # with what the first pictures bring in
    assert statuses == {400, 413, 415, 422}
    assert running.ask("POST", "/restore", bytes(50_000_000), Content_Type=FORM)[0] == 413
    assert_well(running)
    assert set(running.folder.rglob("*")) == before
    assert held > 100_000_000
    assert memory(running) < held + 200_000_000


def test_pictures_that_are_never_read_keep_no_other_from_an_answer(running):
    """As many as are read at once: once their time is up they are given up, and what read them is free again."""
    statuses: list[int] = []
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: statuses.append(running.restore(HANGS)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {504, 422}
    assert time.monotonic() - started > 1  # they were read, and did hang
    for _ in range(3):
        assert_well(running)


def test_slow_senders_are_told_and_others_are_served(running):
    where, of_another = ("127.0.0.1", running.port), ("127.0.0.2", 0)
    slow = [socket.create_connection(where, timeout=10, source_address=of_another) for _ in range(20)]
    for connection in slow:
        head = f"POST /restore HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 1000\r\n\r\n--b"
        connection.sendall(head.encode())
    assert_well(running)  # more are slow than there are places
    told = [connection.recv(10_000).split()[1] for connection in slow]
    assert sorted(told) == [b"408"] * 8 + [b"429"] * 12
    for connection in slow:
        connection.close()
    assert_well(running)


def test_a_moved_alias_changes_the_pixels_and_fails_no_request(running):
    image = encoded(3)
    levels = read_photo(image).levels
    wanted = {name: restore_image(model, levels, task="denoise") for name, model in running.models.items()}
    assert np.abs(wanted["models:/ipt/1"].astype(int) - wanted["models:/ipt/2"]).max() > 5
    answers, stop = [], threading.Event()

    def client() -> None:
        while not stop.is_set():
            answers.append(running.restore(image, task="denoise"))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in ("2", "1"):
            with tracking("test") as store:
                store.set_registered_model_alias("ipt", "champion", version)
            until = time.monotonic() + 60
            while answers[-1:] == [] or answers[-1][1].get("x-model") != f"models:/ipt/{version}":
                assert time.monotonic() < until, f"version {version} never came"
                time.sleep(0.1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _, _ in answers} == {200}
    assert {headers["x-model"] for _, headers, _ in answers} == set(wanted)
    for _, headers, content in answers:
        apart = np.abs(read_photo(content).levels.astype(int) - wanted[headers["x-model"]])
        assert apart.max() <= 1
    assert b'instruct_ipt_reloads_total{result="done"} 2.0' in running.ask("GET", "/metrics")[2]


def test_the_log_is_json_without_pictures_and_words(running):
    words = "take away the rain behind Ada Lovelace"
    assert running.restore(encoded(5), instruction=words)[0] == 200
    assert running.restore(encoded(5), instruction=words * 99)[0] == 400
    assert running.restore(encoded(5), instruction=words, task="derain")[0] == 400
    assert_well(running)
    time.sleep(1)
    for name in ("log.jsonl", "messages.txt"):
        assert "Lovelace" not in (running.folder / name).read_text()
    lines = [json.loads(line) for line in (running.folder / "log.jsonl").read_text().splitlines()]
    assert {"restore", "model", "model_unchecked"} == {line["event"] for line in lines}
    assert lines[0]["note"].startswith("models:/ipt/1: registered without hashes of its files, ")
    assert lines[-1]["status"] == 200
    assert lines[-1]["tasks"] == ["deblur"]
    assert max(len(json.dumps(line)) for line in lines) < 1000


def test_sigterm_finishes_what_is_inside(running):
    """The last test: it ends the service. Whoever asks meanwhile is served, or told so."""
    image = encoded(7, 300)
    statuses = [[] for _ in range(4)]

    def client(own: list[int]) -> None:
        while own[-1:] != [503]:
            own.append(running.restore(image, task="denoise")[0])

    threads = [threading.Thread(target=client, args=(own,)) for own in statuses]
    for thread in threads:
        thread.start()
    while not all(statuses):
        time.sleep(0.01)
    running.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert all(set(own) == {200, 503} for own in statuses)
    assert running.process.wait(60) == 0
    assert "serve: stopping\n" in (running.folder / "messages.txt").read_text()
    logged = [json.loads(line).get("status") for line in (running.folder / "log.jsonl").read_text().splitlines()]
    # Each client's last answer, none lost; one that is served to the end may stand after another's 503.
    assert logged[-1] == 503
    assert logged.count(503) == logged[-8:].count(503) == 4
