"""What macOS and Windows lack: `ipt` restores without it, and the pipeline says where it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
RESTORED = """
import sys

def restore_all(system):
    import uvicorn
    from fastapi.testclient import TestClient
    from typer.testing import CliRunner
    from ipt.cli import app

    def run(*arguments):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return done.stdout

    def restore_on_the_page(server, sockets):
        page = TestClient(server.config.app, base_url="http://localhost")
        assert page.get("/").status_code == 200
        answer = page.post("/restore", files={"image": open("rainy.png", "rb")}, data={"task": "derain"})
        assert answer.status_code == 200, answer.text
        open(f"{system}/page.png", "wb").write(answer.content)

    sys.platform = system
    uvicorn.Server.run = restore_on_the_page  # in place of a server that goes on
    assert run("--version").startswith("ipt ")
    assert "derain" in run("info")
    run("restore", "rainy.png", "-o", system, "--task", "derain", "--compare")
    assert "http://127.0.0.1:" in run("serve", "--port", "0", "--no-browser")
    for name in [name for name in sys.modules if name.split(".")[0] == "ipt"]:
        del sys.modules[name]  # to be imported anew; torch and others have their own ways for each system
"""
TAKEN_AWAY = """
import os

def take_away(module, names):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
"""
LACKS = {
    "darwin": """
take_away(os, "memfd_create posix_fadvise posix_fallocate sched_getaffinity sched_setaffinity process_cpu_count splice")
""",
    "win32": """
import ctypes, signal

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None  # to import it is an ImportError
take_away(os, "chown fchmod fchown fork geteuid getpgid getuid killpg nice setsid sysconf statvfs uname O_DIRECTORY")
# Not SIGKILL: Linux's own `subprocess` ends processes with it.
take_away(signal, "SIGHUP SIGUSR1 alarm pause setitimer pthread_sigmask")
load, open_file = ctypes.CDLL.__init__, os.open

def load_named(self, name, *rest, **options):
    if name is None:
        raise TypeError("Windows loads no library without a name")
    load(self, name, *rest, **options)

def open_no_folder(path, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Windows opens no folder", path)
    return open_file(path, *rest, **options)

ctypes.CDLL.__init__, os.open = load_named, open_no_folder
""",
}


@pytest.mark.slow
def test_without_what_only_linux_has_photographs_are_restored_alike(tmp_path):
    Image.effect_noise((64, 48), 50).convert("RGB").save(tmp_path / "rainy.png")
    runs = "".join(f"{lacks}\nrestore_all('{system}')\n" for system, lacks in ({"linux": ""} | LACKS).items())
    done = subprocess.run(
        [sys.executable, "-c", RESTORED + TAKEN_AWAY + runs],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    restored = [
        (tmp_path / system / name).read_bytes()
        for system in ("linux", *LACKS)
        for name in ("rainy.png", "rainy.png.compare.jpg", "page.png")
    ]
    assert restored == 3 * restored[:3]
    assert restored[0] == restored[2] != (tmp_path / "rainy.png").read_bytes()


@pytest.mark.parametrize("command", ["repro", "train", "serve"])
def test_on_windows_the_pipeline_says_where_it_runs(tmp_path, command):
    """Before it imports what is not there, in one sentence; DVC runs its stages by the same command."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['fcntl'] = None\nsys.platform = 'win32'\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", f"pipelines.{command}"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "error: the pipeline needs Linux or macOS (on Windows: run it in WSL 2); `ipt`, which restores, runs on all\n"
    )
