"""The lease on a real store: never two inside, whatever happens between reading, writing and reading again."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pipelines.registry import lease
from pipelines.registry.lease import LASTS, LEASE, MARGIN, LeaseError, leased
from pipelines.tracking.store import tracking


@pytest.fixture
def client(store):
    with tracking("test") as client:
        client.create_registered_model("m")
        yield client


class Stopped:
    """A client with `before` and `after` its writes of tags."""

    def __init__(self, client, before=lambda: None, after=lambda: None) -> None:
        self.client, self.before, self.after = client, before, after

    def set_registered_model_tag(self, *arguments):
        self.before()
        self.client.set_registered_model_tag(*arguments)
        self.after()

    def __getattr__(self, name):
        return getattr(self.client, name)


def leases(client) -> list[str]:
    return [name for name in client.get_registered_model("m").tags if name.startswith(LEASE)]


def test_who_saw_none_but_writes_late_stays_out(client):
    read, write, held, leave = (threading.Event() for _ in range(4))

    def pause() -> None:
        read.set()  # it saw no lease
        assert write.wait(30)

    def enter_late() -> bool:
        with leased(Stopped(client, before=pause), "m"):
            return leave.is_set()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(enter_late)
        assert read.wait(30)
        with leased(client, "m") as check:
            write.set()
            held.wait(0.5)  # time for it to come in, were it let in
            assert not late.done()
            check()
            leave.set()
        assert late.result(30)
    assert leases(client) == []


def test_two_that_write_in_the_same_moment_go_back_and_come_in_one_by_one(client):
    seen, written, inside, most = threading.Barrier(2), threading.Barrier(2), [], []

    def enter() -> None:
        first, then = [seen], [written]  # both have seen none before one writes, and both have written before one reads
        both = Stopped(client, lambda: first and first.pop().wait(30), lambda: then and then.pop().wait(30))
        with leased(both, "m"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.1)
            inside.pop()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(enter) for _ in range(2)]:
            done.result(30)
    assert most == [1, 1]
    assert leases(client) == []


def test_the_second_is_told_who_since_when_and_what_to_do(client, monkeypatch):
    monkeypatch.setattr(lease, "WAIT", 0.0)
    with leased(client, "m"):
        [name] = leases(client)
        held = json.loads(client.get_registered_model("m").tags[name])
        with pytest.raises(LeaseError) as told, leased(client, "m"):
            pass
        assert leases(client) == [name]
    assert str(told.value) == (
        f"m: {held['who']} has been moving its aliases since {held['since']}; nothing was moved here. When that is "
        f"done, run the same again; if it was killed, from {held['until']} on"
    )
    assert f"(process {os.getpid()})" in held["who"]


def test_a_lease_that_ran_out_is_the_next_ones_and_its_holder_learns_it(client, monkeypatch):
    monkeypatch.setattr(lease, "WAIT", 0.0)
    ahead = 0.0
    clock = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=lambda: time.monotonic() + ahead)
    monkeypatch.setattr(lease, "time", clock)
    with leased(client, "m") as check:
        check()
        ahead = LASTS - MARGIN + 1  # the margin protects what is under way
        with pytest.raises(LeaseError, match="took longer than 90 seconds"):
            check()
        with pytest.raises(LeaseError, match="has been moving"), leased(client, "m"):
            pass
        ahead = LASTS + 1
        with leased(client, "m") as other:
            other()
            with pytest.raises(LeaseError, match="another one may do so"):
                check()
    assert leases(client) == []


def test_a_lease_that_another_took_away_is_noticed_whatever_the_clock_says(client):
    with leased(client, "m") as check:
        client.delete_registered_model_tag("m", *leases(client))
        with pytest.raises(LeaseError):
            check()


def test_it_goes_back_when_the_block_fails(client):
    with pytest.raises(KeyError), leased(client, "m"):
        raise KeyError
    assert leases(client) == []
