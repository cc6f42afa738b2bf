"""What decides over the bytes that a node makes: this code, and the libraries under it."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("degradations", "ipt", "pipelines")  # what nodes need of this checkout
LIBRARIES = ("albumentations", "numpy", "opencv-python-headless", "pyarrow", "torch")


def code_here() -> dict[str, str]:
    """A hash of the packages that this process imports, and the versions of the libraries, by name."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    # Of torch 2.13.0+cu130 the end says for which device it was built.
    return {"this code": digest.hexdigest()[:12]} | {name: version(name).partition("+")[0] for name in LIBRARIES}


def differences(here: dict[str, str], there: dict[str, str]) -> str:
    """What `there` has in another version, in words; empty where nothing is."""
    return ", ".join(
        f"{name} {there.get(name)} in place of {here[name]}" for name in here if there.get(name) != here[name]
    )
