"""One picture after the other: in the order they came, and none for whom nobody waits any more."""

import asyncio
import http.client
import socket
import threading
import time

import pytest
import uvicorn

from ipt.page.app import create_app
from ipt.page.jobs import Job, Workshop
from ipt.page.requests import Order, RequestError
from ipt.photos.file_processes import FileProcesses


@pytest.fixture
def endless(monkeypatch):
    """Restoring goes on until it is given up; tells by events when it began and when it ended."""
    begun, ended = threading.Event(), threading.Event()

    def restore_tasks(model, levels, tasks, *, before_tile, **_):
        begun.set()
        try:
            while True:
                before_tile()
                time.sleep(0.005)
        finally:
            ended.set()

    monkeypatch.setattr("ipt.page.progress.restore_tasks", restore_tasks)
    return begun, ended


def test_jobs_are_done_in_the_order_they_come(workshop, encoded, monkeypatch):
    done = []
    jobs = [Job(Order(encoded(seed=number), "denoise")) for number in range(10)]
    monkeypatch.setattr(workshop, "_restore", lambda job: done.append(job) or job)

    async def one(job):
        with workshop.submit(job) as future:
            ahead = workshop.ahead(job)
            assert await future is job
            return ahead

    async def all_of_them():
        return await asyncio.gather(*(one(job) for job in jobs))

    assert asyncio.run(all_of_them()) == list(range(10))
    assert done == jobs


def test_who_waits_no_more_ends_the_work_and_the_next_is_served(workshop, encoded, endless):
    begun, ended = endless
    given_up, waiting, last = (Job(Order(encoded(), "denoise")) for _ in range(3))

    async def come_and_go():
        with workshop.submit(given_up), workshop.submit(waiting):
            await asyncio.to_thread(begun.wait, 5)
            assert (workshop.ahead(given_up), workshop.ahead(waiting)) == (0, 1)
        assert await asyncio.to_thread(ended.wait, 5)
        begun.clear()
        with workshop.submit(last):
            assert await asyncio.to_thread(begun.wait, 5)
            assert workshop.ahead(last) == 0
        return workshop._inside

    assert asyncio.run(come_and_go()) == []
    assert waiting.tile == 0  # not begun


def test_closing_gives_up_what_is_inside(workshop, encoded, endless):
    async def close():
        with workshop.submit(Job(Order(encoded(), "denoise"))) as future:
            await asyncio.to_thread(endless[0].wait, 5)
            workshop.close()
            with pytest.raises(RequestError, match="stopping"):
                await future

    asyncio.run(close())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_too_little_memory_is_said_in_words(workshop, encoded, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("ipt.page.progress.restore_tasks", fails)
    with pytest.raises(RequestError, match="out of memory; send a smaller picture") as caught:
        workshop._restore(Job(Order(encoded(), "denoise")))
    assert caught.value.status == 507


@pytest.mark.parametrize("accept", ["image/*", "application/vnd.instruct-ipt.progress"])
def test_a_connection_that_ends_frees_its_job(model, files, encoded, endless, accept):
    """As when a tab is closed: over a real connection, where the client of the other tests has none."""
    begun, ended = endless
    workshop = Workshop(model, files)
    server = uvicorn.Server(uvicorn.Config(create_app(workshop, "m", 1_000_000), log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=5)
        body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + encoded()
        body += b'\r\n--b\r\nContent-Disposition: form-data; name="task"\r\n\r\nderain\r\n--b--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Accept": accept}
        connection.request("POST", "/restore", body, headers)
        assert begun.wait(5)
        connection.close()
        assert ended.wait(5)
        until = time.monotonic() + 5
        while workshop._inside and time.monotonic() < until:
            time.sleep(0.01)
        assert workshop._inside == []
    finally:
        server.should_exit = True
        thread.join(10)
        workshop.close()
    assert not thread.is_alive()


def test_a_file_that_is_given_up_while_it_is_read_frees_the_workshop_at_once(model, encoded):
    async def come_and_go(workshop):
        with workshop.submit(Job(Order(b"sleep", "denoise"))):
            await asyncio.sleep(0.5)
        with workshop.submit(Job(Order(encoded(), "denoise"))) as future:
            return await asyncio.wait_for(future, 20)

    with FileProcesses(1, program="hostile_file_process") as files:
        files.read_photo(encoded())
        workshop = Workshop(model, files)
        assert asyncio.run(come_and_go(workshop)).plan.tasks == ("denoise",)
        workshop.close()
