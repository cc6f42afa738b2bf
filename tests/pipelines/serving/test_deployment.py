"""The builder for Ray's own commands: arguments to settings; and two replicas of a real deployment."""

import os
import re
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from browsers import chromium, needs_browser
from PIL import Image

from ipt import restore_image
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.photos.photo import read_photo
from pipelines import serve as serve_command
from pipelines import serving
from pipelines.serving.deployment import DEFAULTS, TOKEN, settings_from

ROOT = Path(__file__).parents[3]


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
        ({"without_token": "perhaps"}, "without_token: expected true or false, got 'perhaps'"),
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


def test_the_builder_wants_a_token_or_to_be_told_that_there_is_none(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    for arguments in ({}, {"without_token": "false"}):
        with pytest.raises(ValueError, match=f"no token is asked for; set {TOKEN} to a secret .*without_token: true"):
            serving.app(arguments)
    for told in (True, "true"):
        assert settings_from({"without_token": told})[0].token is None
    monkeypatch.setenv(TOKEN, "open sesame")
    assert settings_from({"without_token": True})[0].token  # one that is there is asked for


def test_the_default_is_an_application_that_serve_build_takes(monkeypatch):
    from ray.serve import Application

    monkeypatch.setenv(TOKEN, "open sesame")
    assert isinstance(serving.default, Application)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = serving.other


@pytest.fixture(scope="module")
def two_replicas(local_ray, make_config, fill_parameters, tmp_path_factory):
    """A model in a folder, and the address of two replicas of its service."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    model = fill_parameters(InstructIPT(make_config()), 0, 0.1).eval()
    folder = tmp_path_factory.mktemp("two") / "model"
    save_model(model, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    try:
        arguments = {"model": str(folder), "replicas": "2", "precision": "fp32", "without_token": "true"}
        serve.run(serving.app(arguments), name="two", route_prefix="/")
        running = serve.status().applications["two"].deployments["service"]
        assert running.replica_states == {"RUNNING": 2}
        yield folder, f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


def documented(kind: str, beginning: str, address: str) -> str:
    """A block of docs/serving.md that begins so, for this service, and asking for a task that the model has."""
    text = (ROOT / "docs/serving.md").read_text()
    (block,) = (one for one in re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) if one.startswith(beginning))
    return block.replace("http://127.0.0.1:8000", address).replace('instruction="remove the rain"', 'task="derain"')


@pytest.fixture
def picture(two_replicas, tmp_path):
    """A picture as a file, and a function that looks whether a restored one has the pixels of the library."""
    levels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(levels).save(tmp_path / "in.png")
    model = InstructIPT.from_pretrained(two_replicas[0])
    wanted = restore_image(model, levels, task="derain", precision="fp32").astype(int)
    assert np.abs(wanted - levels).max() > 5

    def is_restored(content: bytes) -> bool:
        return bool(np.abs(read_photo(content).levels - wanted).max() <= 1)

    return tmp_path / "in.png", is_restored


@pytest.mark.slow
def test_curl_and_the_generated_client_get_the_pixels_of_the_library(two_replicas, picture):
    """By the commands and the code of the documents, from two replicas."""
    (model, address), (image, is_restored) = two_replicas, picture
    folder = image.parent
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "in.jpg").symlink_to(image)
    (folder / "client.py").write_text(documented("python", "from pathlib", address))

    def shell(commands: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run(
            ["bash", "-e"], input=commands, cwd=folder, env=environment, text=True, capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert "x-tasks: derain" in shell(documented("sh", "curl -sf", address)).lower()
    assert is_restored((folder / "out.jpg").read_bytes())
    (folder / "out.jpg").unlink()
    told = shell(documented("sh", "python3 -m venv client", address) + "\npython client.py\n")
    assert told.splitlines()[-1] == f"derain by task with {model}"
    assert is_restored((folder / "out.jpg").read_bytes())


@pytest.mark.slow
@needs_browser
def test_the_page_gets_the_pixels_of_the_library(two_replicas, picture):
    (_, address), (image, is_restored) = two_replicas, picture
    with chromium() as browser:
        page = browser.new_page()
        page.goto(address)
        page.locator("#files").set_input_files(image)
        page.get_by_role("radio", name="Rain").check()
        page.locator("#restore").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download", exact=True).click()
        assert is_restored(Path(download.value.path()).read_bytes())
