"""The import rules of the layout, and that importing does nothing."""

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGES = ("degradations", "ipt", "pipelines")
FLOWS = ("dvc.yaml", "pipelines/optional/dvc.yaml")
STAGES = tuple(stage for name in FLOWS for stage in YAML(typ="safe").load((ROOT / name).read_text())["stages"])
COMMANDS = (*STAGES, "promote", "release", "restore", "serve", "look", "repro", "storage", "ui")


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
    assert "pipelines.common.params.load_params" in seen["prepare"]  # inside a function
    assert "degradations.rain" in imported(ROOT / "degradations" / "__init__.py")
    assert offenders([ROOT / "pipelines" / "tracking" / "store.py"], "mlflow")
    assert not offenders([ROOT / "pipelines" / "tracking" / "store.py"], "ml")


def test_the_model_knows_neither_the_pipeline_nor_the_damage():
    others = ("ray", "dvc", "mlflow", "albumentations", "degradations", "pipelines")
    assert offenders(files("ipt"), *others) == []


def test_the_core_works_without_the_extra_page():
    """Only the room of the page imports what its extra brings, inside of functions."""
    extra = ("fastapi", "starlette", "uvicorn", "python_multipart")
    page = [path for path in files("ipt") if path.parent.name == "page"]
    assert offenders([path for path in files("ipt") if path not in page], *extra) == []
    assert offenders(page, *extra)
    for path in page:
        top = ast.parse(path.read_text()).body
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
        assert {name.partition(".")[0] for name in names} & set(extra) == set(), path


def test_damage_knows_no_model():
    assert offenders(files("degradations"), "torch", "ipt", "pipelines", "ray", "mlflow", "dvc") == []


# Rooms by floor, from the ground up: what is imported lies below. A folder is a room, a file right in a package too.
FLOORS = (
    ("ipt.files", "ipt.pixels", "ipt.weights", "degradations"),
    ("ipt.network", "ipt.photos", "ipt.understanding"),
    ("ipt.training", "ipt.pretrained"),
    ("ipt.biases", "ipt.diffusion"),
    ("ipt.model",),
    ("ipt.export", "ipt.restoring"),
    ("ipt.page", "ipt.reports"),
    ("ipt.cli",),
    ("pipelines.common",),
    ("pipelines.data", "pipelines.cluster", "pipelines.tracking"),
    ("pipelines.pictures", "pipelines.understanding", "pipelines.training", "pipelines.scoring"),
    ("pipelines.denoisers", "pipelines.registry"),
    ("pipelines.promotion", "pipelines.serving"),
    tuple(f"pipelines.{command}" for command in COMMANDS),
)


def room(module: str) -> str:
    return ".".join(module.split(".")[: 1 if module.startswith("degradations") else 2])


def test_every_room_has_a_floor_and_imports_go_downwards():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    seen, upwards = set(), []
    for path in (path for package in PACKAGES for path in files(package)):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        here = room(module)
        if module in ("ipt.__init__", "pipelines.__init__"):  # the first names what others hold, lazily
            continue
        seen.add(here)
        rooms = {room(name) for name in imported(path)} & set(floor)
        upwards += [f"{module} imports {other}" for other in rooms - {here} if floor[other] >= floor[here]]
    assert seen == set(floor)
    assert upwards == []


def test_no_files_import_one_another_in_a_circle():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for package in PACKAGES for path in files(package)
    }
    graph = {name: imported(path) & set(modules) - {name} for name, path in modules.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)  # a circle is a CycleError


def test_at_the_top_of_pipelines_is_what_a_person_can_run():
    tops = [path for path in (ROOT / "pipelines").glob("*.py") if path.stem != "__init__"]
    assert {path.stem for path in tops} == set(COMMANDS)
    assert len(tops) <= 17
    assert all('if __name__ == "__main__":' in path.read_text() for path in tops)


def test_files_stay_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for p in PACKAGES for path in files(p)
    }
    assert {name: length for name, length in lengths.items() if length > 300 and "params" not in name} == {}


def test_albumentations_stays_in_degradations():
    assert offenders([*files("ipt"), *files("pipelines")], "albumentations", "albucore") == []
    assert offenders(files("degradations"), "albumentations")


def test_only_tracking_and_registry_import_mlflow():
    allowed = [path for path in files("pipelines") if path.parent.name in ("tracking", "registry")]
    assert offenders([path for path in files("pipelines") if path not in allowed], "mlflow") == []
    assert offenders(allowed, "mlflow")


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_imports_a_stage_or_command(command):
    others = [path for path in files("pipelines") if path != ROOT / "pipelines" / f"{command}.py"]
    assert offenders(others, f"pipelines.{command}") == []


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
