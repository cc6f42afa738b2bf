"""What DVC has made and keeps, as dvc.lock says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

LOCK = Path("dvc.lock")


def data_hashes(lock: Path = LOCK, of: Literal["outs", "deps"] = "outs") -> dict[str, str]:
    """The hash of each data folder in dvc.lock, by path: that stages made, or (`deps`) that they read.

    Empty where nothing is locked.
    """
    if not lock.is_file():
        return {}
    stages = YAML(typ="safe", pure=True).load(lock.read_text())["stages"]
    return {
        each["path"]: each["md5"]
        for stage in stages.values()
        for each in stage.get(of, [])
        if each["path"].startswith("data/")
    }
