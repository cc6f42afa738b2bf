"""The network of hosts on this machine that the tests of a cluster stand on, which leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.local_network import Delayed, LocalNetwork, inside

CALLED = "import socket, sys; server = socket.create_server(('', 7)); print('listens', flush=True); "
TAKES = CALLED + (
    "taker = server.accept()[0]; came = 0\n"
    "while piece := taker.recv(1 << 20): came += len(piece)\n"
    "print(came, flush=True)"
)
ANSWERS = CALLED + "taker = server.accept()[0]; taker.sendall(taker.recv(9)); taker.recv(1)"
TELLS = (
    "import os, socket, sys; name = socket.gethostname(); print("
    "os.listdir(sys.argv[1]), os.listdir('/tmp/ray'), os.path.basename(os.getcwd()), name, socket.gethostbyname(name))"
)
SENDS = "import socket, sys; socket.create_connection((sys.argv[1], 7)).sendall(bytes(int(sys.argv[2])))"


@pytest.fixture
def network():
    try:
        network = LocalNetwork(megabits=40)
    except RuntimeError as error:
        pytest.skip(f"NO NETWORK: hosts with a network between them are not tested; {error}")
    with network:
        yield network


def listening(network: LocalNetwork, folder: Path, program: str, hidden: Path | None = None) -> subprocess.Popen:
    host = network.start([sys.executable, "-c", program], folder, hidden, stdout=subprocess.PIPE)
    assert host.stdout.readline() == "listens\n"
    return host


def test_a_link_carries_what_it_is_told_and_not_more(network, tmp_path):
    address, size = network.next_address(), 3_000_000
    taker = listening(network, tmp_path / "one", TAKES)
    other = network.start(["sleep", "60"], tmp_path / "two", None)
    started = time.monotonic()
    command = inside(other, tmp_path, sys.executable, "-c", SENDS, address, str(size))
    subprocess.run(command, check=True, timeout=60)
    assert taker.communicate()[0] == f"{size}\n"
    assert time.monotonic() - started > 0.8 * 8 * size / 40e6
    other.kill()
    other.wait()


def test_hosts_share_neither_files_nor_name(network, tmp_path):
    (tmp_path / "secret").write_text("x")
    address, command = network.next_address(), [sys.executable, "-c", TELLS, str(tmp_path)]
    host = network.start(command, tmp_path / "one", tmp_path, stdout=subprocess.PIPE)
    assert host.communicate(timeout=60)[0] == f"['one'] [] one host1 {address}\n"
    assert (tmp_path / "secret").read_text() == "x"


def test_a_delayed_server_answers_later_by_the_way_there_and_back(network, tmp_path):
    address = network.next_address()
    near = (network.address, 8)
    answers = listening(network, tmp_path / "one", ANSWERS)
    with answers, Delayed(near, (address, 7), 0.2), socket.create_connection(near) as asked:
        started = time.monotonic()
        asked.sendall(b"something")
        assert asked.recv(9) == b"something"
        assert 0.4 < time.monotonic() - started < 5


OWNER = """
import sys
from pathlib import Path
from benchmarks.local_network import LocalNetwork
with LocalNetwork() as network:
    host = network.start(["sleep", "60"], Path(sys.argv[1]), None)
    print(network.device, host.pid, flush=True)
    sys.stdin.read()
    host.kill()
    host.wait()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_whether_it_is_closed_or_killed(network, tmp_path, killed):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner.stdout as told:
        device, host = told.readline().split()
    assert device in os.listdir("/sys/class/net")
    if killed:
        owner.kill()
    owner.stdin.close()
    owner.wait()
    until = time.monotonic() + 10  # the kernel takes its time to clean up behind a namespace
    while device in os.listdir("/sys/class/net") and time.monotonic() < until:
        time.sleep(0.05)
    assert device not in os.listdir("/sys/class/net")
    if killed:
        os.kill(int(host), signal.SIGKILL)
