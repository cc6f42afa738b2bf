"""The builder for Ray's own commands: arguments to settings; and two replicas of a real deployment."""

import base64
import io
import json
import socket
import urllib.request

import numpy as np
import pytest
from PIL import Image

from ipt import restore_image
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.photos.photo import read_photo
from pipelines import serve as serve_command
from pipelines import serving
from pipelines.serving.deployment import DEFAULTS, TOKEN, settings_from


def test_arguments_are_settings_and_the_rest_is_the_default(monkeypatch):
    monkeypatch.setenv(TOKEN, "open sesame")
    settings, replicas = settings_from({"model": "models/some", "batch": "8", "timeout": "2.5", "replicas": "2"})
    assert replicas == 2
    assert (settings.model, settings.batch, settings.timeout, settings.threads) == ("models/some", 8, 2.5, 1)
    assert {name: getattr(settings, name) for name in ("device", "queue")} == {
        name: DEFAULTS[name] for name in ("device", "queue")
    }
    assert len(settings.token) == 32
    assert settings.prints


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"modle": "x"}, "modle: unknown argument; expected model, "),
        ({"token": "x"}, "token: unknown argument"),
        ({"batch": "many"}, "batch: .*got 'many'"),
        ({"replicas": "0"}, "replicas: expected a positive number, got 0"),
        ({"timeout": "nan"}, "timeout: expected a positive number"),
        ({"device": "tpu"}, "device: "),
        ({"max_pixels": "999999999"}, "max_pixels: expected at most 120000000"),
    ],
)
def test_arguments_that_cannot_be(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        serving.app(arguments)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "pictures.example"])
def test_nobody_serves_others_without_a_token(monkeypatch, host):
    served = []
    monkeypatch.setattr(serve_command, "serve_forever", lambda settings, host, port: served.append(host))
    monkeypatch.setattr("sys.argv", ["serve", "--host", host])
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(ValueError, match=f"{TOKEN} to a secret"):
        serve_command.main()
    for empty in ("", " \n"):
        monkeypatch.setenv(TOKEN, empty)
        with pytest.raises(ValueError, match=f"{TOKEN}: expected a token, got nothing"):
            serve_command.main()
        with pytest.raises(ValueError, match="got nothing"):
            serving.app({})
    assert served == []
    monkeypatch.setenv(TOKEN, "open sesame\n")
    serve_command.main()
    monkeypatch.delenv(TOKEN)
    monkeypatch.setattr("sys.argv", ["serve", "--host", "127.0.0.1"])
    serve_command.main()
    assert served == [host, "127.0.0.1"]


def test_the_default_is_an_application_that_serve_build_takes():
    from ray.serve import Application

    assert isinstance(serving.default, Application)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = serving.other


@pytest.mark.slow
def test_two_replicas_give_the_pixels_of_the_library(local_ray, make_config, fill_parameters, tmp_path):
    from ray import serve
    from ray.serve.config import HTTPOptions

    model = fill_parameters(InstructIPT(make_config()), 0, 0.1).eval()
    save_model(model, tmp_path / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    try:
        arguments = {"model": str(tmp_path / "model"), "replicas": "2", "precision": "fp32"}
        serve.run(serving.app(arguments), name="two", route_prefix="/")
        buffer = io.BytesIO()
        levels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(levels).save(buffer, "PNG")
        body = json.dumps({"image": base64.b64encode(buffer.getvalue()).decode(), "task": "derain"}).encode()
        address = f"http://127.0.0.1:{port}"
        asked = urllib.request.Request(f"{address}/restore", body, {"Content-Type": "application/json"})
        wanted = restore_image(model, levels, task="derain", precision="fp32")
        for _ in range(6):
            with urllib.request.urlopen(asked, timeout=30) as answer:
                assert np.abs(read_photo(answer.read()).levels.astype(int) - wanted).max() <= 1
        with urllib.request.urlopen(f"{address}/", timeout=30) as answer:
            assert b"<title>" in answer.read()
        running = serve.status().applications["two"].deployments["service"]
        assert running.replica_states == {"RUNNING": 2}
    finally:
        serve.shutdown()
