"""A copy of a checkout with other params, for benchmarks and tests that run whole stages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def copy_checkout(source: Path, folder: Path) -> None:
    """Copy a checkout as it is now, but for what git ignores and stages made, into a repository of its own."""
    for name in _git(source, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (source / name).is_file() and name != "dvc.lock" and not name.startswith(("metrics/", "plots/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, folder / name)
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")


def edit_params(checkout: Path, change: Callable[[Any], None]) -> None:
    """Apply `change` to the tree of params.yaml."""
    yaml, path = YAML(), checkout / "params.yaml"
    tree = yaml.load(path.read_text())
    change(tree)
    with path.open("w") as file:
        yaml.dump(tree, file)


def _git(folder: Path, *words: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT")}  # as in a hook of git's
    return subprocess.run(["git", *words], cwd=folder, env=own, check=True, capture_output=True, text=True).stdout
