"""The ages of constraints.txt, from an index on this machine."""

import contextlib
import hashlib
import io
import json
import os
import threading
import zipfile
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pins
import pytest

FILES = {  # name: version, day, why it was withdrawn
    "worn": [("1.0", "2020-02-03", False), ("1.1", "2021-05-06", False), ("2.0", "2026-01-02", False)],
    "fresh": [("3.0", "2026-02-03", False)],
    "gone": [("0.1", "2026-03-04", False), ("0.2", "2026-03-05", "breaks pictures")],
}


def wheel(name, version):
    file, about = io.BytesIO(), f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/RECORD", "")
    return file.getvalue()


class Index(BaseHTTPRequestHandler):
    """https://packaging.python.org/specifications/simple-repository-api, the JSON of it."""

    def do_GET(self):
        folder, name = self.path.strip("/").split("/")
        if folder == "simple" and name in FILES:
            listed = [
                {
                    "filename": f"{name}-{version}-py3-none-any.whl",
                    "url": f"/files/{name}-{version}-py3-none-any.whl",
                    "hashes": {"sha256": hashlib.sha256(wheel(name, version)).hexdigest()},
                    "size": len(wheel(name, version)),
                    "upload-time": f"{day}T12:00:00Z",
                    "yanked": withdrawn,
                }
                for version, day, withdrawn in FILES[name]
            ]
            about = {"meta": {"api-version": "1.1"}, "name": name, "versions": [], "files": listed}
            self.answer(json.dumps(about).encode(), "application/vnd.pypi.simple.v1+json")
        elif folder == "files":
            self.answer(wheel(*name.split("-")[:2]), "application/octet-stream")
        else:
            self.send_error(404)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content if self.command == "GET" else b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project of three packages, and their index in place of all others."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["worn<2", "fresh"]\n'
        '[project.optional-dependencies]\nmore = ["gone"]\n'
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("UV_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path
    server.shutdown()
    server.server_close()


def test_pins_have_their_days_and_what_is_old_or_withdrawn_is_told(folder, monkeypatch, capsys):
    (folder / "constraints.txt").write_text("fresh==3.0\ngone==0.2\nworn==1.0\n")
    found = pins.find_pins(folder)
    assert [pin.describe(date(2026, 3, 10)) for pin in found] == [
        f"2020-02-03  {'worn==1.0':<44}today: 1.1, old: 2227 days",  # 2.0 is not allowed
        "2026-02-03  fresh==3.0",
        f"2026-03-05  {'gone==0.2':<44}today: 0.1, WITHDRAWN: breaks pictures",
    ]
    assert "old" not in found[1].describe(date(2027, 2, 3))
    assert "old: 366 days" in found[1].describe(date(2027, 2, 4))
    monkeypatch.setattr(pins, "__file__", str(folder / ".ci/pins.py"))
    assert pins.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 pins: ")
    (folder / "constraints.txt").write_text("fresh==3.0\nworn==1.0\n")
    assert pins.main() == 0


def test_a_version_that_the_index_has_not_is_told_in_uvs_words(folder, monkeypatch, capsys):
    (folder / "constraints.txt").write_text("fresh==9.9\n")
    monkeypatch.setattr(pins, "__file__", str(folder / ".ci/pins.py"))
    assert pins.main() == 1
    told = capsys.readouterr().err
    assert told.startswith("error: constraints.txt: ")
    assert "fresh==9.9" in told
