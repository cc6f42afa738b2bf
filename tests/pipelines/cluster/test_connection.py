"""A cluster that is not there is told at once, with what to do."""

import socket

import pytest

from pipelines.cluster.connection import ClusterError, check_answers


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
