"""Every stage and command from outside: it explains itself, refuses what it does not know, and ends in words."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

# Without anything but params.yaml: arguments, and what the last line names.
MISSING = {
    "prepare": ([], "prepare.sources"),
    "synthesize": (["--task", "derain"], "data/clean"),
    "understand": ([], "data/clean"),
    "analyze": ([], "data/shards/denoise/train"),
    "train": ([], "metrics/modulation.json"),
    "compress": ([], "models/trained"),
    "evaluate": ([], "models/compressed"),
    "register": ([], "models/trained/run.json"),
    "diffusion": ([], "data/clean"),
    "promote": ([], "no such registered model"),
    "restore": (["--input", "nowhere", "--output", "out"], "nowhere"),
    "serve": (["--model", "nowhere"], "nowhere"),
    "look": (["nowhere.parquet"], "nowhere.parquet"),
    "storage": (["gc"], "params.yaml.ray.storage"),
    "release": (["start", "nowhere", "--photographs", "nowhere"], "nowhere"),
}


def call(folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "RAY"))}
    return subprocess.run(
        [sys.executable, "-m", f"pipelines.{command}", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_turn(function, items) -> dict:
    """The results by item, two at a time: most of each is the import of Ray and torch."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(items, pool.map(function, items), strict=True))


def test_the_table_names_every_command_that_reads_files():
    commands = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__", "repro", "ui"}
    assert set(MISSING) == commands


def test_help_is_given_and_unknown_arguments_are_refused(tmp_path):
    asked = [(command, word) for command in (*MISSING, "repro") for word in ("--help", "--no-such")]
    asked.remove(("repro", "--no-such"))  # it hands them to DVC
    for (command, word), done in in_turn(lambda each: call(tmp_path, *each), asked).items():
        if word == "--help":
            assert done.returncode == 0, command
            assert done.stdout.startswith(f"usage: python -m pipelines.{command}"), command
        else:
            assert done.returncode == 2, command
            assert "--no-such" in done.stderr.splitlines()[-1] or "required" in done.stderr.splitlines()[-1], command
    assert list(tmp_path.rglob("*")) == []


def test_what_is_missing_is_the_last_line_and_the_status_is_1(tmp_path):
    for command in MISSING:
        (tmp_path / command).mkdir()
        shutil.copy(ROOT / "params.yaml", tmp_path / command)
    params = tmp_path / "prepare" / "params.yaml"
    params.write_text(
        params.read_text().replace("- builtin: {scales: [1.0, 0.75, 0.5, 0.35]}", "- folder: {path: no, scales: [1]}")
    )
    done = in_turn(lambda command: call(tmp_path / command, command, *MISSING[command][0]), list(MISSING))
    for command, each in done.items():
        last = each.stderr.strip().splitlines()[-1]
        assert each.returncode == 1, (command, each.stderr)
        assert last.startswith("error: "), (command, each.stderr)
        assert MISSING[command][1] in last, (command, last)
        assert "Traceback" not in each.stderr, command


def test_every_mistake_in_params_is_told_and_nothing_is_made(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    mistaken, count = re.subn(r"(?m)^train:\n((?:  .*\n)*?)  steps: ", r"train:\n\1  step: ", text)
    assert count == 1
    (tmp_path / "params.yaml").write_text(mistaken.replace("tile: 128", "tile: x"))
    done = call(tmp_path, "prepare")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: params.yaml.prepare.tile: expected a whole number, got 'x'",
        "params.yaml.train.step: unknown key 'step'; did you mean 'steps'?",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
