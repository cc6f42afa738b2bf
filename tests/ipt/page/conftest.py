"""What the tests of the page share: a tiny model, pictures, and the application behind a client."""

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ipt.model import InstructIPT
from ipt.page.app import create_app
from ipt.page.jobs import Workshop
from ipt.photos.file_processes import FileProcesses

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def model(make_config, fill_parameters, see_nothing):
    return see_nothing(fill_parameters(InstructIPT(make_config()), 0, 0.1)).eval()


@pytest.fixture(scope="session")
def files():
    with FileProcesses(2) as files:
        yield files


@pytest.fixture
def workshop(model, files):
    workshop = Workshop(model, files, max_pixels=500_000)
    yield workshop
    workshop.close()


@pytest.fixture
def client(workshop):
    app = create_app(workshop, "a model", max_body=1_000_000, names={"study"})
    with TestClient(app, base_url=HERE) as client:
        yield client


@pytest.fixture(scope="session")
def encoded():
    """Encode a picture of noise."""

    def make(kind="PNG", size=(28, 20), mode="RGB", seed=0, **options) -> bytes:
        levels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], len(mode)), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, kind, **options)
        return buffer.getvalue()

    return make
