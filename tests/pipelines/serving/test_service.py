"""The service's answers, without Ray's processes: called as Ray Serve calls it."""

import asyncio
import base64
import functools
import hashlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest
from PIL import Image

from ipt import restore_image
from ipt.model import InstructIPT
from ipt.network.backbone import Backbone
from ipt.network.checkpoint import save_model
from ipt.page import canary
from ipt.page.progress import PROGRESS
from ipt.photos import child
from ipt.photos.file_processes import FileProcesses
from ipt.photos.photo import read_photo
from ipt.restoring.restore import plan_restoration
from pipelines.serving import service as serve_worker
from pipelines.serving.routes import create_app
from pipelines.serving.service import Service, Settings


@pytest.fixture(scope="module")
def model(make_config, fill_parameters, see_nothing):
    return see_nothing(fill_parameters(InstructIPT(make_config()), 0, 0.1)).eval()


@pytest.fixture(scope="module")
def settings(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "model"
    save_model(model, folder)
    return Settings(
        model=str(folder), device="cpu", precision="auto", threads=1, batch=4, batch_wait=0.05, queue=8,
        max_body=1_000_000, max_pixels=500_000, body_timeout=1.0, timeout=10.0, watch=1.0, token=None,
    )  # fmt: skip


def encoded(kind: str = "PNG", size: tuple[int, int] = (24, 20), mode: str = "RGB", seed: int = 0) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], len(mode)), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


def request(method: str, path: str, body: bytes | AsyncIterator[bytes] = b"", **headers: str) -> httpx2.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Request(method, f"http://127.0.0.1:8000{path}", content=body, headers=named)


application = functools.cache(create_app)  # it takes a while, in which others would grow old


async def ask(service: Service, one: httpx2.Request, address: str = "127.0.0.1") -> httpx2.Response:
    """An answer by the routes that Ray Serve runs."""
    transport = httpx2.ASGITransport(application(service), client=(address, 1))
    async with httpx2.AsyncClient(transport=transport) as client:
        return await client.send(one)


def restore(image: bytes, headers: dict[str, str] | None = None, **wish: object) -> httpx2.Request:
    return restore_at("/restore", image, headers, **wish)


def restore_at(path: str, image: bytes, headers: dict[str, str] | None = None, **wish: object) -> httpx2.Request:
    body = json.dumps({"image": base64.b64encode(image).decode(), **wish}).encode()
    return request("POST", path, body, content_type="application/json", **(headers or {}))


@pytest.fixture
def answers(monkeypatch):
    """Asks a service all at once; in one event loop, as in a replica, of which Ray's batches want to know one thing."""
    config = SimpleNamespace(max_ongoing_requests=1000)
    monkeypatch.setattr(serve_worker.serve, "get_replica_context", lambda: SimpleNamespace(_deployment_config=config))
    with asyncio.Runner() as runner:

        async def all_at_once(service: Service, requests: tuple[httpx2.Request, ...]) -> list:
            return await asyncio.gather(*(ask(service, one) for one in requests))

        yield lambda service, *requests: runner.run(all_at_once(service, requests))


def log_of(service: Service) -> list[dict]:
    return [json.loads(line) for line in service._log.take()]


def start_processes(answers, service) -> None:
    """Both that read files are ready when it has answered: what a test measures does not wait for their start."""
    answers(service, *(restore_at("/look", encoded()) for _ in range(4)))


def test_requests_at_the_same_time_share_a_batch_and_keep_their_formats(answers, settings, model):
    service = Service(replace(settings, batch_wait=0.5))
    start_processes(answers, service)
    wishes = [
        (encoded(seed=1), {"task": "denoise"}),
        (encoded(mode="RGBA", seed=2), {"task": "deblur"}),
        (encoded("JPEG", seed=3), {"task": "derain"}),
        (encoded("TIFF", seed=4), {}),
    ]
    got = answers(service, *(restore(image, **wish) for image, wish in wishes))
    for (image, wish), answer in zip(wishes, got, strict=True):
        came, back = read_photo(image), read_photo(answer.content)
        assert answer.status_code == 200
        assert back.format == came.format
        assert answer.headers["content-type"] == f"image/{came.format.lower()}"
        assert answer.headers["x-tasks"] == wish.get("task", "")
        if came.format == "PNG":
            wanted = restore_image(model, came.levels, **wish)
            assert np.abs(back.levels.astype(int) - wanted).max() <= 1
            assert not np.array_equal(back.levels, came.levels)
    assert np.array_equal(read_photo(got[1].content).alpha, read_photo(wishes[1][0]).alpha)
    assert got[3].content == wishes[3][0]  # nothing seen for sure: as it came
    assert [line["batch"] for line in log_of(service)].count(3) == 3


def test_json_has_all_in_one(answers, settings, model):
    image = encoded()
    answer = answers(Service(settings), restore(image, {"accept": "application/json"}, instruction="remove the rain"))[
        0
    ]
    told = json.loads(answer.content)
    assert set(told) == {"image", "type", "tasks", "by", "understood", "probabilities", "model"}
    levels, wish = read_photo(image).levels, {"instruction": "remove the rain"}
    plan = plan_restoration(model, levels, **wish)
    assert (told["type"], tuple(told["tasks"]), told["by"]) == ("image/png", plan.tasks, plan.by)
    assert told["understood"] == list(plan.understood)
    restored = read_photo(base64.b64decode(told["image"])).levels
    assert np.abs(restored.astype(int) - restore_image(model, levels, **wish)).max() <= 1
    assert set(told["probabilities"]) == set(plan.probabilities)


def test_large_pictures_go_alone(answers, settings, model):
    image = encoded(size=(600, 40))
    service = Service(settings)
    answer = answers(service, restore(image, task="deblur"))[0]
    wanted = restore_image(model, read_photo(image).levels, task="deblur")
    assert np.array_equal(read_photo(answer.content).levels, wanted)
    assert answers(service, restore(image, instruction="\ud800 rain"))[0].status_code == 400


def test_what_is_refused_and_how(answers, settings):
    service = Service(settings)
    image = encoded()
    cases = [
        (request("GET", "/restore"), 405),
        (request("POST", "/"), 405),
        (request("GET", "/../../etc/passwd"), 404),
        (restore(image, task="../../etc/passwd"), 400),
        (restore(image, task="denoise", instruction="denoise"), 400),
        (restore(image, strength=2), 400),
        (restore(image, instruction="\ud800 rain"), 400),
        (restore(b"nothing"), 422),
        (restore(image[:100]), 422),
        (restore(encoded(size=(1000, 501))), 413),
        (request("POST", "/restore", b"x" * 1_000_001, content_type="application/json"), 413),
        (request("POST", "/restore", b"x"), 415),
    ]
    for asked, status in cases:
        answer = answers(service, asked)[0]
        assert answer.status_code == status, answer.content
        assert answer.content.count(b"\n") == 1
        assert set(json.loads(answer.content)) == {"error"}
    assert answers(service, restore(image, task="denoise"))[0].status_code == 200
    lines = log_of(service)
    assert [line["status"] for line in lines] == [status for _, status in cases if status not in (404, 405)] + [200]


def test_the_log_has_no_pictures_and_no_words(answers, settings):
    service, image, words = Service(settings), encoded(), "take away the rain behind Ada Lovelace"
    wishes = [{"instruction": words}, {"instruction": words * 99}, {"instruction": words, "task": "derain"}]
    got = answers(service, *(restore(image, **wish) for wish in wishes))
    assert [answer.status_code for answer in got] == [200, 400, 400]
    lines = log_of(service)
    assert sorted(line["status"] for line in lines) == [200, 400, 400]
    text = json.dumps(lines)
    assert "Lovelace" not in text
    assert base64.b64encode(image).decode()[:40] not in text


def test_a_full_queue_and_a_late_answer(answers, settings, monkeypatch):
    release = threading.Event()
    service = Service(replace(settings, queue=2, timeout=0.3))
    service._canary.send().result(30)
    monkeypatch.setattr(serve_worker, "restore_jobs", lambda jobs: release.wait(5) and [ValueError("late")] * len(jobs))
    got = answers(service, *(restore(encoded(), task="denoise") for _ in range(4)), request("GET", "/readyz"))
    release.set()
    assert [answer.status_code for answer in got] == [504, 504, 429, 429, 503]
    assert got[2].headers["retry-after"] == "1"
    assert answers(service, request("GET", "/readyz"))[0].status_code == 200


@pytest.mark.parametrize("many", [8, 20])
def test_slow_senders_keep_nobody_out(answers, settings, many):
    service, end = Service(replace(settings, body_timeout=60.0)), asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        while not end.is_set():
            yield b"{"
            await asyncio.sleep(0.01)

    async def one_among_slow_ones() -> tuple:
        asked = {"content_type": "application/json"}
        slow = [
            asyncio.ensure_future(ask(service, request("POST", "/restore", trickle(), **asked), "10.0.0.1"))
            for _ in range(many)
        ]
        await asyncio.sleep(0.1)
        good = [await ask(service, restore(encoded(seed=seed), task="denoise")) for seed in range(4)]
        ready = await ask(service, request("GET", "/readyz"))
        end.set()
        return good, ready, [answer.status_code for answer in await asyncio.gather(*slow)]

    good, ready, slow = asyncio.run(one_among_slow_ones())
    assert [answer.status_code for answer in (*good, ready)] == [200] * 5
    assert sorted(slow) == [400] * 7 + [408] + [429] * (many - 8)  # one gave way; no JSON; no place


def test_a_mistake_of_ours_is_told_to_the_log_alone(answers, settings, monkeypatch):
    monkeypatch.setattr(serve_worker, "restore_jobs", lambda jobs: [KeyError("secret")] * len(jobs))
    service = Service(settings)
    answer = answers(service, restore(encoded(), task="denoise"))[0]
    assert answer.status_code == 500
    assert b"secret" not in answer.content
    assert "secret" in log_of(service)[-1]["error"]


def test_no_memory_is_told(answers, settings, monkeypatch):
    monkeypatch.setattr(serve_worker, "restore_jobs", lambda jobs: [MemoryError()] * len(jobs))
    service = Service(settings)
    answer = answers(service, restore(encoded(), task="denoise"))[0]
    assert answer.status_code == 507
    assert "out of memory" in answer.text
    assert "MemoryError" in log_of(service)[-1]["error"]


def test_token(answers, settings):
    service = Service(replace(settings, token=hashlib.sha256(b"open sesame").digest()))
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic open sesame"}):
        for asked in (restore(encoded(), headers), request("GET", "/metrics", **headers)):
            assert answers(service, asked)[0].status_code == 401
    right = {"authorization": "Bearer open sesame"}
    assert answers(service, restore(encoded(), right))[0].status_code == 200
    assert answers(service, request("GET", "/metrics", **right))[0].status_code == 200
    assert answers(service, request("GET", "/healthz"))[0].status_code == 200


def test_metrics_count(answers, settings):
    service = Service(settings)
    answers(service, restore(encoded(), task="denoise"), restore(b"x"), restore(encoded(), task="deblur"))
    text = answers(service, request("GET", "/metrics"))[0].content.decode()
    for line in (
        'instruct_ipt_requests_total{status="200"} 2.0',
        'instruct_ipt_requests_total{status="422"} 1.0',
        'instruct_ipt_tasks_total{task="deblur"} 1.0',
        "instruct_ipt_waiting 0.0",
        "instruct_ipt_pixels_total 960.0",
        "process_resident_memory_bytes ",
    ):
        assert line in text


def test_who_is_inside_is_served_to_the_end(answers, settings):
    service = Service(settings)

    async def stop(service: Service) -> tuple:
        inside = asyncio.create_task(ask(service, restore(encoded(), task="denoise")))
        await asyncio.sleep(0)
        log = await service.drain()
        assert inside.done()
        late = [await ask(service, asked) for asked in (restore(encoded(), task="denoise"), request("GET", "/readyz"))]
        return inside.result(), *late, log

    inside, *late, log = asyncio.run(stop(service))
    assert inside.status_code == 200
    assert [answer.status_code for answer in late] == [503, 503]
    assert [json.loads(line)["status"] for line in log.splitlines()] == [200]


def test_the_page_and_what_it_asks(answers, settings, model):
    service, image = Service(settings), encoded()
    page, about, look, described = answers(
        service,
        request("GET", "/"),
        request("GET", "/about"),
        restore_at("/look", image),
        request("GET", "/openapi.json"),
    )
    assert "<title>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (tuple(about.json()["tasks"]), about.json()["max_pixels"]) == (model.config.tasks, 500_000)
    assert (look.headers["x-width"], look.headers["x-height"]) == ("24", "20")
    assert {"/restore", "/look", "/healthz", "/readyz", "/metrics"} <= set(described.json()["paths"])
    done = answers(service, restore(image, {"accept": PROGRESS}, task="derain"))[0]
    lines, files = lines_of(done)
    listed = lines[-1]["done"]["files"]
    assert [file["name"] for file in listed] == ["restored", "preview"]
    assert len(files) == sum(file["bytes"] for file in listed)
    wanted = restore_image(model, read_photo(image).levels, task="derain")
    restored = read_photo(files[: listed[0]["bytes"]]).levels
    assert np.abs(restored.astype(int) - wanted).max() <= 1


def lines_of(answer: httpx2.Response) -> tuple[list[dict], bytes]:
    """The lines of an answer of PROGRESS, and the files behind the last one."""
    lines, rest = [], answer.content
    while rest and "done" not in (lines or [{}])[-1]:
        first, _, rest = rest.partition(b"\n")
        lines.append(json.loads(first))
    return lines, rest


def test_progress_by_tile_and_by_place(answers, settings, model, monkeypatch):
    monkeypatch.setattr("ipt.page.progress.affordable_tile", lambda *_: 100)
    monkeypatch.setattr("ipt.page.progress.LOOKS", 0.001)
    service, image = Service(settings), encoded(size=(600, 100))
    start_processes(answers, service)
    asked = restore(image, {"accept": PROGRESS}, task="derain")
    both = [lines_of(answer) for answer in answers(service, asked, asked)]
    wanted = restore_image(model, read_photo(image).levels, task="derain", tile=100)
    for lines, files in both:
        tiles = [(one["tile"], one["tiles"]) for one in lines if "tile" in one]
        assert 1 < len(tiles) <= tiles[0][1] == tiles[-1][1] > 6
        assert tiles == sorted(set(tiles))
        assert {tuple(one["tasks"]) for one in lines if "tile" in one} == {("derain",)}
        assert np.array_equal(read_photo(files[: lines[-1]["done"]["files"][0]["bytes"]]).levels, wanted)
    assert {"waiting": 1} in both[0][0] + both[1][0]
    assert (service._jobs, service._waiting) == ([], 0)


def test_what_goes_wrong_while_it_is_told_is_a_line_and_before_that_an_answer(answers, settings, monkeypatch):
    service, told = Service(replace(settings, timeout=0.3)), {"accept": PROGRESS}
    start_processes(answers, service)
    assert answers(service, restore(encoded(), told, task="dance"))[0].status_code == 400
    broken = answers(service, restore(encoded()[:100], told))[0]
    assert (broken.status_code, lines_of(broken)[0][-1]["status"]) == (200, 422)
    monkeypatch.setattr(serve_worker, "restore_jobs", lambda jobs: time.sleep(0.6) or [ValueError("late")] * len(jobs))
    late = answers(service, restore(encoded(), told, task="denoise"))[0]
    assert lines_of(late)[0][-1] == {"error": "not done after 0.3 seconds; send a smaller picture", "status": 504}
    assert [entry["status"] for entry in log_of(service)] == [400, 422, 504]


@pytest.mark.parametrize("accept", [PROGRESS, "image/*"])
def test_who_goes_away_ends_the_work_before_its_next_tile(settings, monkeypatch, accept):
    """Ray Serve cancels what answers somebody who has gone."""
    begun, ended = threading.Event(), threading.Event()

    def endless(model, levels, tasks, *, before_tile, **_):
        try:
            while True:
                before_tile()
                begun.set()
                time.sleep(0.005)
        finally:
            ended.set()

    monkeypatch.setattr("ipt.page.progress.restore_tasks", endless)
    service = Service(settings)

    async def come_and_go() -> None:
        asked = restore(encoded(size=(600, 40)), {"accept": accept}, task="derain")
        asking = asyncio.create_task(ask(service, asked))
        assert await asyncio.to_thread(begun.wait, 5)
        asking.cancel()
        assert await asyncio.to_thread(ended.wait, 5)
        assert not (await asyncio.wait({asking}, timeout=5))[1]

    asyncio.run(come_and_go())
    assert (service._jobs, service._waiting) == ([], 0)


def test_a_look_counts_as_inside_and_wants_the_token(answers, settings):
    full = Service(replace(settings, queue=0))
    assert answers(full, restore_at("/look", encoded()))[0].status_code == 429
    assert b"instruct_ipt_waiting 0.0" in answers(full, request("GET", "/metrics"))[0].content
    asks = Service(replace(settings, token=hashlib.sha256(b"open sesame").digest()))
    assert answers(asks, restore_at("/look", encoded()))[0].status_code == 401
    assert answers(asks, request("GET", "/about"))[0].json()["token"] is True


def test_pages_of_other_sites_cannot_use_it_and_a_proxys_names_can(answers, settings):
    service = Service(settings)
    named = {"host": "pictures.example", "origin": "https://pictures.example"}
    assert answers(service, restore(encoded(), named, task="derain"))[0].status_code == 200
    other = {"origin": "https://evil.example"}
    assert answers(service, restore(encoded(), other, task="derain"))[0].status_code == 403


def test_a_decoder_that_hangs_is_lost_with_its_request_and_no_other_waits_for_it(answers, settings, monkeypatch):
    """As many of them as there are processes: each would have held a thread that decodes for ever."""
    monkeypatch.setattr(FileProcesses.__init__, "__defaults__", (1, None, "hostile_file_process"))
    service = Service(replace(settings, timeout=1.0))
    service._canary.send().result(30)
    bad = answers(service, *(restore(b"sleep", task="denoise") for _ in range(2)))
    assert {answer.status_code for answer in bad} <= {504, 422}
    crashed = answers(service, restore(b"crash", task="denoise"))[0]
    assert crashed.status_code == 422
    assert "its decoder crashed" in crashed.json()["error"]
    for _ in range(4):
        good = answers(service, restore(encoded(), task="denoise"))[0]
        assert good.status_code == 200


def test_a_service_that_cannot_work_says_so_until_it_can(answers, settings, monkeypatch):
    """Its queue is empty and its model is there, but no file can be read, or nothing restored."""
    monkeypatch.setattr(canary, "_EVERY", 0.0)
    monkeypatch.setattr(canary, "_AGAIN", 0.0)
    service, ready = Service(settings), request("GET", "/readyz")
    assert answers(service, ready)[0].status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(serve_worker, "restore_jobs", lambda jobs: [RuntimeError("no memory")])
        answer = answers(service, ready)[0]
        assert answer.status_code == 503
        assert answer.json()["error"] == "a test picture did not come through: RuntimeError: no memory"
    assert answers(service, ready)[0].status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "forward", lambda self, batch: batch * float("nan"))
        answer = answers(service, ready)[0]
        assert answer.status_code == 503
        assert "restoring gave values that are no numbers" in answer.json()["error"]
        assert answers(service, restore(encoded(), task="denoise"))[0].status_code == 500
    assert answers(service, ready)[0].status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(child.sys, "executable", "/nowhere/python")
        for one in service._files.processes._idle.queue:
            one._process.kill()
            one._process.wait()
        answer = answers(service, ready)[0]
        assert answer.status_code == 503
        assert "no process to read files can be started" in answer.json()["error"]
    assert answers(service, ready)[0].status_code == 200
    events = [line["event"] for line in log_of(service)]
    assert events == ["canary_failed", "canary", "canary_failed", "restore", "canary", "canary_failed", "canary"]
