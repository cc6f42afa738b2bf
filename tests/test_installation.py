"""What is installed without the extras: restoring works, everything else says what to install."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BLOCKED = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("dvc", "ray") else found(name, *rest)
"""


def without_ray_and_dvc(tmp_path, *arguments):
    """Run python in an environment that seems to lack both."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


def test_a_stage_without_the_pipeline_ends_with_the_command_that_installs_it(tmp_path):
    done = without_ray_and_dvc(tmp_path, "-m", "pipelines.train")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the pipeline needs dvc, ray, not installed here: pip install 'instruct-ipt[")
    assert done.stderr.count("\n") == 1


def test_importing_the_pipeline_without_its_parts_is_an_import_error_that_says_so(tmp_path):
    done = without_ray_and_dvc(tmp_path, "-c", "import pipelines")
    assert "ImportError: the pipeline needs dvc, ray, not installed here" in done.stderr


def test_restoring_asks_for_nothing_of_the_pipeline():
    """The core's requirements are all that `ipt` imports, wherever in it."""
    code = "import sys, ipt.cli, ipt.restoring.photographs; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("ray", "mlflow", "dvc", "albumentations", "pandas", "pyarrow", "skimage", "sklearn", "pydantic"):
        assert f"'{name}'" not in done.stdout


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment_restores_a_picture(tmp_path):
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)  # the wheel from the sdist: what that lacks, it lacks
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert {"ipt/released/SHA256SUMS", "ipt/released/model.safetensors"} <= set(zipfile.ZipFile(wheel).namelist())
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # else pip sees this checkout
    subprocess.run([*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel], check=True, env=clean)
    listed = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True, env=clean)
    packages = listed.stdout
    assert len(packages.splitlines()) <= 40
    Image.effect_noise((64, 48), 50).convert("RGB").save(tmp_path / "a.jpg")
    command = [tmp_path / "venv/bin/ipt", "restore", "a.jpg", "-o", "b.jpg", "--task", "denoise"]
    subprocess.run(command, cwd=tmp_path, env=clean, check=True)
    assert Image.open(tmp_path / "b.jpg").size == (64, 48)
    refused = subprocess.run(
        [tmp_path / "venv/bin/ipt", "info", "--model", "models:/a@b"],
        cwd=tmp_path, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "pip install 'instruct-ipt[pipeline]'" in refused.stderr
    assert refused.stderr.count("\n") == 1
