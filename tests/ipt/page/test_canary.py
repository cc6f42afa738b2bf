"""A test picture: it comes through, or those who ask are told why not, until it does again."""

import asyncio
import threading

import pytest

from ipt.page import canary
from ipt.page.canary import Canary
from ipt.page.requests import RequestError


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(canary, "_EVERY", 0.0)
    monkeypatch.setattr(canary, "_AGAIN", 0.0)


def refusal(one: Canary) -> str | None:
    try:
        asyncio.run(one.check())
    except RequestError as error:
        return str(error) if error.status == 503 else f"status {error.status}"
    return None


def test_what_goes_wrong_is_told_until_it_is_well_again(at_once):
    wrong, told, seen = [None, ValueError("no decoder"), ValueError("still"), None, None], [], []

    def restore(picture, call):
        seen.append(picture)
        error = wrong[len(seen) - 1]
        if error:
            raise error

    one = Canary(restore, 10.0, told.append)
    words = "a test picture did not come through: ValueError: "
    assert [refusal(one) for _ in wrong] == [None, f"{words}no decoder", f"{words}still", None, None]
    assert told == ["ValueError: no decoder", None]
    assert seen[0].startswith(b"\xff\xd8")


def test_a_picture_that_hangs_is_given_up_and_told(at_once, monkeypatch):
    monkeypatch.setattr(canary, "_PATIENCE", 0.05)
    ended, calls = threading.Event(), []

    def restore(picture, call):
        calls.append(call)
        if len(calls) == 1:
            ended.wait(10)

    one = Canary(restore, 0.1)
    assert refusal(one) is None  # not yet
    assert "not done after 0.1 seconds" in [refusal(one) for _ in range(3)][-1]
    assert calls[0]._cancelled
    assert len(calls) == 1
    ended.set()
    one.send().result(5)
    assert refusal(one) is None


def test_as_long_as_all_is_well_one_picture_is_enough():
    seen = []
    one = Canary(lambda picture, call: seen.append(picture), 10.0)
    assert [refusal(one) for _ in range(5)] == [None] * 5
    assert len(seen) == 1


def test_the_page_is_ready_while_its_test_picture_comes_through(client, monkeypatch, at_once):
    assert client.get("/readyz").json() == {"status": "ready", "model": "a model"}

    def fails(*_, **__):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("ipt.page.jobs.restore_tasks", fails)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (
            503,
            "a test picture did not come through: RuntimeError: no memory",
        )
    assert client.get("/readyz").status_code == 200
