"""A cluster that is not there is told at once, with what to do; one that is started here obeys who has its token."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cluster import connection
from pipelines.cluster.code import code_here
from pipelines.cluster.connection import ClusterError, check_answers, check_nodes, own_token
from pipelines.cluster.storage import Storage

ROOT = Path(__file__).parents[3]
OWN_CLUSTER = """
import os, subprocess, sys
import ray
from pipelines.cluster.connection import connected

with connected() as address:
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    token = os.environ["RAY_AUTH_TOKEN"]
    without = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    join = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print('inside')"
    for environment in (without, without | {"RAY_AUTH_TOKEN": "0" * 64}, os.environ):
        done = subprocess.run([sys.executable, "-c", join, address], env=environment, capture_output=True, text=True)
        print(done.returncode, done.stdout.strip(), "InvalidAuthToken" in done.stderr)
    session = ray._private.worker._global_node.get_session_dir_path()
    found = subprocess.run(["grep", "-rl", "--devices=skip", token, session], capture_output=True, text=True)
    print("written to:", found.stdout.strip() or "no file")
"""


def test_who_listens_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_answers(f"127.0.0.1:{server.getsockname()[1]}")
    check_answers("auto")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_nobody_listens(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{host}:{server.getsockname()[1]}"
    with pytest.raises(ClusterError) as error:
        check_answers(address)
    assert f"no Ray cluster at {address} (RAY_ADDRESS or params.yaml.ray.address): " in str(error.value)
    assert "start one with `ray start --head`, or set ray.address: local" in str(error.value)


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:port", ""])
def test_what_is_no_address(address):
    with pytest.raises(ClusterError, match="expected local, auto or HOST:PORT, such as .*, got " + address):
        check_answers(address)


def test_a_port_beyond_all_ports():
    with pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:99999"):
        check_answers("127.0.0.1:99999")


def test_a_cluster_of_ones_own_gets_a_new_token(monkeypatch):
    tokens = set()
    for _ in range(2):
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        own_token()
        tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)


@pytest.mark.parametrize(
    "set_by_user", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "/some/file"}]
)
def test_what_the_user_has_set_stays(monkeypatch, set_by_user):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    own_token()
    assert {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")} == set_by_user


def test_a_node_with_other_code_is_told_by_its_address(local_ray, tmp_path, monkeypatch):
    """This machine's one node, listed twice, beside a driver that has another numpy."""
    (node,) = (node for node in local_ray.nodes() if node["Alive"])
    again = node | {"NodeID": node["NodeID"].upper(), "NodeManagerAddress": "10.0.0.2"}
    monkeypatch.setattr(connection.ray, "nodes", lambda: [node, again])
    check_nodes(Storage(str(tmp_path)))
    here = code_here()
    monkeypatch.setattr(connection, "code_here", lambda: here | {"numpy": "1.0"})
    with pytest.raises(ClusterError, match=rf"^the node [\d.]+ has numpy {here['numpy']} in place of 1\.0, so what it"):
        check_nodes(Storage(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_who_has_no_token_runs_nothing_and_no_home_folder_is_needed(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": "/proc/no-home", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", OWN_CLUSTER], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1  True\n1  True\n0 inside False\nwritten to: no file\n", done.stdout + done.stderr
    assert done.stderr == ""
