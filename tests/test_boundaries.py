"""The import rules of the layout, and that importing does nothing."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGES = ("degradations", "ipt", "pipelines")
FLOWS = ("dvc.yaml", "pipelines/optional/dvc.yaml")
STAGES = tuple(stage for name in FLOWS for stage in YAML(typ="safe").load((ROOT / name).read_text())["stages"])
COMMANDS = (*STAGES, "promote")


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert len(found) > 5, f"{package}: its files are not where this test looks"
    return found


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it: `from a import b` gives a and a.b."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
            module = base if node.level else node.module
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        if any(name == other or name.startswith(f"{other}.") for other in forbidden)
    ]


def test_imports_are_seen(tmp_path):
    """The reader of imports itself: absolute, relative, from, nested."""
    seen = {path.stem: imported(path) for path in files("pipelines")}
    assert "pipelines.common.params" in seen["train"]
    assert "ray.train" in seen["workers"]
    assert "ipt.network.checkpoint.save_model" in seen["train"]
    assert "pyarrow.parquet" in seen["register"]  # inside a function
    assert "degradations.rain" in imported(ROOT / "degradations" / "__init__.py")
    assert offenders([ROOT / "pipelines" / "tracking" / "store.py"], "mlflow")
    assert not offenders([ROOT / "pipelines" / "tracking" / "store.py"], "ml")


def test_the_model_knows_neither_the_pipeline_nor_the_damage():
    others = ("ray", "dvc", "mlflow", "albumentations", "degradations", "pipelines")
    assert offenders(files("ipt"), *others) == []


def test_damage_knows_no_model():
    assert offenders(files("degradations"), "torch", "ipt", "pipelines", "ray", "mlflow", "dvc") == []


def test_albumentations_stays_in_degradations_and_crops():
    others = [path for path in files("pipelines") if path.name != "crops.py"]
    assert offenders([*files("ipt"), *others], "albumentations", "albucore") == []
    assert offenders(files("degradations"), "albumentations")


def test_only_tracking_registry_versions_and_the_registered_models_code_import_mlflow():
    allowed = {"store.py", "registration.py", "versions.py", "pyfunc.py", "diffusion_pyfunc.py"}
    paths = [path for path in files("pipelines") if path.name not in allowed]
    assert offenders(paths, "mlflow") == []
    assert offenders([path for path in files("pipelines") if path.name in allowed], "mlflow")


@pytest.mark.parametrize("stage", COMMANDS)
def test_stages_never_import_one_another(stage):
    others = [f"pipelines.{other}" for other in COMMANDS if other != stage]
    assert offenders([ROOT / "pipelines" / f"{stage}.py"], *others) == []


def test_nothing_but_the_stages_themselves_imports_a_stage():
    helpers = [path for path in files("pipelines") if path.stem not in COMMANDS]
    assert offenders(helpers, *(f"pipelines.{stage}" for stage in COMMANDS)) == []


WATCH = """
import importlib, json, os, sys
events = []
starts = "subprocess.Popen os.system os.fork os.forkpty os.posix_spawn os.exec".split()

def watch(event, arguments):
    if event in starts:
        events.append([event, repr(arguments)[:200]])
    if event == "open" and isinstance(arguments[0], str) and not arguments[0].startswith("/dev/"):
        flags = arguments[2] or 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            events.append([event, arguments[0]])
    if event in ("os.mkdir", "socket.connect"):
        events.append([event, repr(arguments)[:200]])

sys.addaudithook(watch)
names = sys.argv[1:]
del sys.argv[:]
for name in names:
    importlib.import_module(name)
print(json.dumps(events))
"""


def test_importing_creates_nothing_starts_nothing_and_needs_no_arguments(tmp_path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in files(package)
        if not path.name.endswith("pyfunc.py")  # only MLflow imports them, as files
    ]
    assert len(modules) > 30
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *modules],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    events = json.loads(done.stdout.splitlines()[-1])
    # platform.processor(), which some library asks at its import, is `uname -p` on Linux.
    assert [event for event in events if "'uname'" not in event[1]] == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["home"]
