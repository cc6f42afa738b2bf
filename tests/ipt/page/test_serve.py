"""The command `ipt serve`: what it says where it cannot serve, its address, and when it opens a browser."""

import signal
import socket

import pytest
import uvicorn
from typer.testing import CliRunner

from ipt.cli import app
from ipt.network.checkpoint import save_model
from ipt.page import serve


@pytest.fixture
def command(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(model, tmp_path / "model")

    def run(*arguments):
        return CliRunner().invoke(app, ["serve", *arguments])

    return run


@pytest.fixture
def served(monkeypatch):
    """The server ends as soon as it would begin; what would be opened in a browser."""
    opened = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    monkeypatch.setattr(serve.threading.Thread, "start", lambda thread: thread.run())
    return opened


def test_a_missing_extra_is_one_sentence(command, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name != "fastapi" else name)
    result = command("--model", "nowhere")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "ipt: serve: the page needs uvicorn, python-multipart; install with: pip install 'instruct-ipt[page]'\n"
    )


def test_no_model_is_one_sentence(command, served):
    result = command("--model", "nowhere", "--port", "0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ipt: --model nowhere: no such folder; ")


def test_a_port_that_is_taken_is_one_sentence(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = command("--model", "model", "--port", str(port))
    assert result.exit_code == 2
    assert result.stderr == f"ipt: 127.0.0.1:{port}: Address already in use; name another with --host and --port\n"
    assert command("--host", "no.such.host.invalid").stderr.endswith("; name another with --host and --port\n")


def test_the_address_is_printed_and_opened_where_there_is_a_screen(command, served, monkeypatch):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    result = command("--model", "model", "--port", "0")
    assert (result.exit_code, result.stderr) == (0, "")
    address = result.stdout.removeprefix("ipt: restoring photographs at ").split()[0]
    assert address.startswith("http://127.0.0.1:")
    assert served == [address]
    assert command("--model", "model", "--port", "0", "--no-browser").exit_code == 0
    monkeypatch.delenv("DISPLAY")
    monkeypatch.setattr(serve.sys, "platform", "linux")
    assert command("--model", "model", "--port", "0").exit_code == 0
    assert served == [address]


def test_an_interruption_gives_up_what_is_inside_first():
    done = []
    server = serve._server(uvicorn.Config(None), lambda: done.append(server.should_exit))
    server.handle_exit(signal.SIGINT, None)
    assert (done, server.should_exit) == ([False], True)


def test_a_host_that_others_reach_is_warned_of(command, served):
    result = command("--model", "model", "--host", "0.0.0.0", "--port", "0", "--no-browser")
    assert result.stdout.startswith("ipt: restoring photographs at http://127.0.0.1:")
    assert result.stderr == "ipt: 0.0.0.0: whoever reaches this computer can use the page\n"
