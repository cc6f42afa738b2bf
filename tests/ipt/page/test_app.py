"""The page's service: what it serves, with which headers, what it restores, and how it refuses."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import cv2
import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ipt.page import routes
from ipt.page.guard import HEADERS
from ipt.page.progress import PROGRESS
from ipt.page.requests import FIELDS
from ipt.photos.photo import read_photo
from ipt.restoring.restore import plan_restoration, restore_image

HERE = "http://127.0.0.1:8000"


def restore(client, image, headers=None, **wish):
    return client.post("/restore", files={"image": image}, data=wish, headers=headers)


def test_the_page_is_whole_and_from_here(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append((tag, dict(attributes)))

    Reader().feed(page.text)
    addresses = [value for _, named in seen for name, value in named.items() if name in ("src", "href")]
    assert len(addresses) >= 3
    scripts = [client.get(f"/{name}").text for name in addresses if name.endswith(".js")]
    addresses += [name for script in scripts for name in re.findall(r'from "\./([^"]+)"', script)]
    for address in addresses:
        assert client.get(f"/{address}").status_code == 200, address
    assert not [tag for tag, named in seen if tag == "script" and "src" not in named]
    assert not [named for tag, named in seen if tag == "style" or any(n == "style" or n[:2] == "on" for n in named)]


def test_what_macos_leaves_in_a_folder_is_no_file_of_the_page(tmp_path, monkeypatch):
    (tmp_path / "static").mkdir()
    for name in ("index.html", "page.js", ".DS_Store"):
        (tmp_path / "static" / name).touch()
    monkeypatch.setattr(routes, "files", lambda package: tmp_path)
    assert [TestClient(routes.new_app()).get(f"/{name}").status_code for name in ("", "page.js", ".DS_Store")] == [
        200, 200, 404,
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/page.js", "/about", "/nowhere"])
def test_every_answer_has_the_headers(client, path):
    answer = client.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


def test_about_tells_what_the_page_has_to_know(client, model):
    about = client.get("/about").json()
    assert (about["model"], tuple(about["tasks"])) == ("a model", model.config.tasks)
    assert about["strengths"] == [0, 1.5]
    assert about["max_body"] == 1_000_000
    assert ".tif" in about["suffixes"]


def test_openapi_describes_the_fields_and_no_page_shows_it(client):
    described = client.get("/openapi.json").json()
    body = described["paths"]["/restore"]["post"]["requestBody"]["content"]
    for kind in ("multipart/form-data", "application/json"):
        schema = described["components"]["schemas"][body[kind]["schema"]["$ref"].rpartition("/")[2]]
        assert (schema["properties"].keys(), schema["required"]) == (set(FIELDS), ["image"])
    assert "422" in described["paths"]["/look"]["post"]["responses"]
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404


def test_answers_are_as_openapi_describes_them(client, encoded):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    body = {"image": base64.b64encode(encoded()).decode(), "task": "derain"}
    answers = {
        "About": client.get("/about"),
        "Restored": client.post("/restore", json=body, headers={"Accept": "application/json"}),
        "Error": client.post("/restore", json={}),
    }
    for name, answer in answers.items():
        jsonschema.validate(answer.json(), schemas[name] | {"additionalProperties": False})


def test_a_form_gets_the_pixels_of_the_library_in_the_format_that_came(client, model, encoded):
    for kind, wish in (("PNG", {"task": "derain", "strength": 0.5}), ("TIFF", {"task": "deblur"})):
        image = encoded(kind)
        answer = restore(client, image, **wish)
        assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind.lower()}")
        wanted = restore_image(model, read_photo(image).levels, **wish)
        assert np.array_equal(read_photo(answer.content).levels, wanted)
        assert not np.array_equal(wanted, read_photo(image).levels)
        assert (answer.headers["x-tasks"], answer.headers["x-by"]) == (wish["task"], "task")


def test_metadata_stays(client, encoded):
    exif = Image.Exif()
    exif[0x010E] = "a rainy day"
    answer = restore(client, encoded("JPEG", exif=exif), task="derain")
    with Image.open(io.BytesIO(answer.content)) as restored:
        assert restored.format == "JPEG"
        assert restored.getexif()[0x010E] == "a rainy day"


def test_json_in_and_out(client, model, encoded):
    image, words = encoded(), "remove the rain"
    body = {"image": base64.b64encode(image).decode(), "instruction": words}
    told = client.post("/restore", json=body, headers={"Accept": "application/json"}).json()
    plan = plan_restoration(model, read_photo(image).levels, instruction=words)
    assert (tuple(told["tasks"]), told["by"], told["understood"]) == (plan.tasks, plan.by, list(plan.understood))
    assert set(told["probabilities"]) == set(plan.probabilities)
    restored = read_photo(base64.b64decode(told["image"])).levels
    assert np.array_equal(restored, restore_image(model, read_photo(image).levels, instruction=words))


def test_a_picture_that_shows_nothing_comes_back_to_the_byte(client, encoded):
    image = encoded("JPEG")
    assert restore(client, image).content == image


def test_what_is_not_written_comes_back_as_jpeg_also_where_nothing_was_done(client):
    buffer = io.BytesIO()
    Image.new("RGB", (28, 20), "gray").save(buffer, "AVIF")
    answer = client.post("/restore", files={"image": buffer.getvalue()})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    look = client.post("/look", files={"image": buffer.getvalue()})
    assert look.headers["x-shown"] != "file"


def test_progress_by_tile_then_the_files(client, model, encoded, monkeypatch):
    monkeypatch.setattr("ipt.page.progress.affordable_tile", lambda *_: 100)
    monkeypatch.setattr("ipt.page.progress.LOOKS", 0.001)
    image = encoded(size=(300, 200))
    answer = restore(client, image, {"Accept": PROGRESS}, task="derain")
    assert answer.headers["content-type"] == PROGRESS
    lines, rest = [], answer.content
    while "done" not in (lines or [{}])[-1]:
        line, _, rest = rest.partition(b"\n")
        lines.append(json.loads(line))
    tiles = [(line["tile"], line["tiles"]) for line in lines if "tile" in line]
    assert len(tiles) > 1
    assert tiles == sorted(tiles)
    assert 0 < tiles[-1][0] <= tiles[-1][1] == tiles[0][1] > 10
    done = lines[-1]["done"]
    assert (done["tasks"], done["by"], done["unchanged"]) == (["derain"], "task", False)
    files = {}
    for file in done["files"]:
        files[file["name"]], rest = rest[: file["bytes"]], rest[file["bytes"] :]
    assert rest == b""
    wanted = restore_image(model, read_photo(image).levels, task="derain", tile=100)
    assert np.array_equal(read_photo(files["restored"]).levels, wanted)
    assert read_photo(files["preview"]).levels.shape == wanted.shape


def test_a_mistake_of_ours_is_told_without_its_reason(client, encoded, monkeypatch, capsys):
    def fails(*_, **__):
        raise KeyError("secret")

    monkeypatch.setattr("ipt.page.progress.restore_tasks", fails)
    calm = TestClient(client.app, base_url=HERE, raise_server_exceptions=False)
    plain = restore(calm, encoded(), task="derain")
    assert (plain.status_code, list(plain.json())) == (500, ["error"])
    assert b"secret" not in plain.content
    answer = restore(client, encoded(), {"Accept": PROGRESS}, task="derain")
    assert json.loads(answer.content.splitlines()[-1])["status"] == 500
    assert b"secret" not in answer.content
    assert "secret" in capsys.readouterr().err


def test_a_look_tells_what_a_picture_is_and_shows_it(client, encoded):
    wide = np.random.default_rng(0).integers(0, 65536, (20, 28, 3), np.uint16)
    picture = cv2.imencode(".tif", wide)[1].tobytes()
    answer = client.post("/look", files={"image": picture})
    facts = [answer.headers[f"x-{name}"] for name in ("width", "height", "format", "bits", "shown")]
    assert facts == ["28", "20", "TIFF", "16", "preview"]
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(read_photo(answer.content).levels, (wide[..., ::-1] >> 8).astype(np.uint8))


def test_a_look_at_a_large_picture_is_smaller(client, encoded):
    answer = client.post("/look", files={"image": encoded("JPEG", size=(4000, 100), quality=30)})
    assert [answer.headers[name] for name in ("x-width", "x-shown", "content-type")] == ["4000", "file", "image/jpeg"]
    assert read_photo(answer.content).levels.shape == (64, 2560, 3)
    clear = client.post("/look", files={"image": encoded(mode="RGBA")})
    assert clear.headers["content-type"] == "image/png"
    assert read_photo(clear.content).alpha is not None


@pytest.mark.parametrize("path", ["/look", "/restore"])
def test_pictures_that_are_none_are_refused_in_words(client, encoded, path):
    for image, status, words in (
        (b"<html>", 422, "cannot be read as an image: not one of JPEG"),
        (encoded()[:200], 422, "cannot be read as an image"),
        (encoded("PNG", size=(1000, 501), mode="L" * 3, seed=1)[:2000], 413, "the limit is 500000"),
        (bytes(1_000_001), 413, "the limit is 1000000"),
    ):
        answer = client.post(path, files={"image": image})
        assert answer.status_code == status
        assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"task": "derian"}, "did you mean 'derain'?"),
        ({"task": "derain", "instruction": "rain"}, "expected a task or an instruction, got both"),
        ({"strength": "9"}, "strength: expected 0.0 to 1.5, got 9.0"),
        ({"strength": "much"}, "strength: expected a number, got 'much'"),
        ({"instruction": "a" * 2001}, "at most 2000 characters"),
        ({"model": "../x"}, "unknown field 'model'"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_in_words(client, encoded, wish, words):
    answer = restore(client, encoded(), {"Accept": PROGRESS}, **wish)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_what_is_not_there_is_said_so(client):
    for method, path, status in (("GET", "/x", 404), ("GET", "/restore", 405), ("GET", "/../../etc/passwd", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
