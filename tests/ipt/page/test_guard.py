"""Pages of other sites cannot use the service, whatever their browser sends along; the page itself and programs can."""

import pytest
from starlette.testclient import TestClient

HERE = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    "headers",
    [
        {},  # curl
        {"Host": "localhost:8000"},
        {"Host": "[::1]:8000"},
        {"Host": "192.168.1.5:8000"},
        {"Host": "Study:8000"},  # a name that it was told
        {"Origin": HERE, "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost:8000", "Origin": "http://localhost:8000"},
    ],
)
def test_who_is_served(client, headers):
    assert client.get("/about", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Host": "evil.example:8000"}, "Host: 'evil.example:8000' is not a name of this service"),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example"}, "Host: "),
        ({"Host": "localhost.evil.example:8000"}, "Host: "),
        ({"Host": "evil.example#@127.0.0.1"}, "Host: "),
        ({"Host": "[evil"}, "Host: "),
        ({"Host": ""}, "Host: "),
        ({"Origin": "https://evil.example"}, "Origin: pages of 'https://evil.example' may not use this service"),
        ({"Origin": "null"}, "Origin: "),
        ({"Origin": "http://["}, "Origin: "),  # no address
        ({"Origin": "http://127.0.0.1:9000", "Sec-Fetch-Site": "same-site"}, "Origin: "),  # another port
        ({"Origin": "http://localhost:8000"}, "Origin: "),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "Sec-Fetch-Site: "),
    ],
)
def test_who_is_not(client, workshop, encoded, headers, words, monkeypatch):
    monkeypatch.setattr(workshop, "submit", None)  # nothing gets as far as that
    for answer in (
        client.get("/", headers=headers),
        client.post("/restore", files={"image": encoded()}, data={"task": "derain"}, headers=headers),
    ):
        assert answer.status_code == 403
        assert answer.json()["error"].startswith(words)
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_link_to_the_page_is_followed(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200


def test_the_server_need_not_be_asked_by_its_own_port(workshop):
    """A tunnel or a container may map another port to it: host and origin then still agree."""
    from ipt.page.app import create_app

    with TestClient(create_app(workshop, "m", 1000), base_url="http://localhost:18000") as client:
        assert client.get("/about", headers={"Origin": "http://localhost:18000"}).status_code == 200
