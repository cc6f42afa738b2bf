"""The registered model's table: every row its own answer. It is loaded by MLflow, from a real store."""

import base64
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ipt
from ipt import InstructIPT, restore_image
from ipt.network.checkpoint import save_model
from ipt.photos.file_processes import FileProcesses
from ipt.photos.photo import read_photo
from pipelines.register import REQUIREMENTS
from pipelines.registry import registration as registry
from pipelines.serving.deployment import DEFAULTS


def encoded(kind: str, seed: int = 0, mode: str = "RGB") -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (24, 20, len(mode)), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def saved(make_config, fill_parameters, see_nothing, tmp_path_factory):
    """A checkpoint and the model that MLflow makes of it."""
    folder = tmp_path_factory.mktemp("pyfunc")
    save_model(see_nothing(fill_parameters(InstructIPT(make_config()), 0, 0.1)), folder / "checkpoint")
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(Path(registry.__file__).with_name("pyfunc.py")),
        artifacts={"checkpoint": str(folder / "checkpoint")},
        code_paths=[str(Path(ipt.__file__).parent)],
        signature=registry.signature(),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
    )
    return folder


def test_each_row_is_restored_as_the_library_does_or_says_why_not(saved):
    png, alpha, jpeg = encoded("PNG"), encoded("PNG", 1, "RGBA"), encoded("JPEG", 2)
    rows = [
        {"image": png, "task": "derain"},
        {"image": alpha, "instruction": "?", "task": "deblur"},
        {"image": alpha, "task": "deblur", "strength": 0.5},
        {"image": jpeg, "task": "denoise", "instruction": ""},
        {"image": b"no picture", "task": "derain"},
        {"image": png, "task": "../../etc/passwd"},
        {"image": png, "task": "derain", "strength": 9.0},
        {"image": png[:60], "task": "derain"},
        {"image": b"", "task": "derain"},
        {"image": png},
    ]
    table = mlflow.pyfunc.load_model(str(saved / "model")).predict(pd.DataFrame(rows))
    model = InstructIPT.from_pretrained(saved / "checkpoint")
    assert len(table) == len(rows)
    for place in (0, 2):
        row = rows[place]
        restored, came = read_photo(table.image[place]), read_photo(row["image"])
        wanted = restore_image(model, came.levels, task=row["task"], strength=row.get("strength", 1.0))
        assert np.array_equal(restored.levels, wanted)
        assert not np.array_equal(restored.levels, came.levels)
        assert table.task[place] == row["task"]
        assert table.error[place] is None
    assert np.array_equal(read_photo(table.image[2]).alpha, read_photo(alpha).alpha)
    assert table.image[3].startswith(b"\xff\xd8")  # a JPEG stays one
    errors = ["a task or an instruction", "not one of JPEG", "unknown task", "strength: expected", "cannot be read"]
    for place, error in zip((1, 4, 5, 6, 7), errors, strict=True):
        assert error in table.error[place]
        assert table.image[place] is None
    assert "empty" in table.error[8]
    assert table.image[9] == png  # untrained, it sees nothing for sure: the bytes that came
    assert table.task[9] == ""
    assert set(json.loads(table.probabilities[9])) == {*model.config.tasks, "clean"}


def test_rows_of_wrong_types_have_an_error_each(saved):
    """Without MLflow's own checks of types, as a program may call it."""
    model = mlflow.pyfunc.load_model(str(saved / "model")).unwrap_python_model()
    png = encoded("PNG")
    rows = [
        {"image": base64.b64encode(png).decode(), "task": "derain"},
        {"image": "%%%", "task": "derain"},
        {"image": 7},
        {"task": "derain"},
        {"image": png, "task": 5},
        {"image": png, "task": "derain", "strength": "much"},
        {"image": png, "task": "derain", "strength": float("nan")},
    ]
    table = model.predict(None, pd.DataFrame(rows, dtype=object))
    starts = [None, "image: expected bytes", "image: expected bytes", "image: expected bytes", "task: expected text"]
    for error, start in zip(table.error, [*starts, "strength: expected a number", None], strict=True):
        assert error is None if start is None else error.startswith(start)


def test_a_row_has_the_limits_of_the_service(saved):
    python_model = mlflow.pyfunc.load_model(str(saved / "model")).unwrap_python_model()
    module = sys.modules[type(python_model).__module__]
    assert (DEFAULTS["max_body"], DEFAULTS["max_pixels"]) == (module.MAX_BYTES, module.MAX_PIXELS)
    buffer = io.BytesIO()
    Image.new("1", (4000, 3001)).save(buffer, "PNG")
    rows = [{"image": buffer.getvalue()}, {"image": bytes(32_000_001)}, {"image": "A" * 42_700_000}]
    table = python_model.predict(None, pd.DataFrame(rows, dtype=object))
    assert "4000 x 3001 pixels; the limit is 12000000" in table.error[0]
    assert table.error[1] == "image: 32000001 bytes; the limit is 32000000"
    assert table.error[2] == "image: 32025000 bytes; the limit is 32000000"


def test_a_row_that_kills_its_reader_has_an_error_and_the_others_are_restored(saved, monkeypatch):
    monkeypatch.setattr(FileProcesses.__init__, "__defaults__", (1, None, "hostile_file_process"))
    model = mlflow.pyfunc.load_model(str(saved / "model"))
    table = model.predict(pd.DataFrame([{"image": image, "task": "derain"} for image in (b"crash", encoded("PNG"))]))
    assert "its decoder crashed" in table.error[0]
    assert (table.error[1], table.task[1]) == (None, "derain")


@pytest.mark.slow
def test_requirements_are_all_that_the_model_imports(saved):
    """In a process of its own, that only has what is in the model's folder."""
    import subprocess

    script = """
import sys, mlflow
mlflow.pyfunc.load_model(sys.argv[1])
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(saved / "model")],
        cwd=saved,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin", "HOME": str(saved)},
    )
    loaded = set(done.stdout.split())
    imported_as = {"opencv-python-headless": "cv2", "pillow": "PIL"}
    assert {imported_as.get(name, name) for name in REQUIREMENTS} <= loaded
    assert not loaded & {"ray", "dvc", "albumentations", "pipelines", "degradations"}
