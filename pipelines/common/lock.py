"""What DVC has made and keeps, as dvc.lock says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

LOCK = Path("dvc.lock")


def data_hashes(lock: Path = LOCK, of: Literal["outs", "deps"] = "outs") -> dict[str, str]:
    """The hash of each data folder in dvc.lock, by path: that stages made, or (`deps`) that they read.

    Empty where nothing is locked.
    """
    if not lock.is_file():
        return {}
    return {each["path"]: each["md5"] for each in _data_folders(lock.read_text(), of)}


def _data_folders(text: str, of: Literal["outs", "deps"]) -> Iterator[dict[str, Any]]:
    stages = (YAML(typ="safe", pure=True).load(text) or {}).get("stages", {})
    return (each for stage in stages.values() for each in stage.get(of, []) if each["path"].startswith("data/"))


def hashes_everywhere(every_commit: bool) -> dict[str, dict[str, Any]]:
    """The entry of each version of a data folder that some dvc.lock says a stage made, by its hash.

    Here, and in git: at each branch, tag, stash and experiment of DVC, or at each commit of their histories.
    """
    texts = {LOCK.read_text()} if LOCK.is_file() else set()
    if _in_git():
        which = ["rev-list", "--all"] if every_commit else ["for-each-ref", "--format=%(objectname)"]
        commits = ["HEAD", *_git(*which).decode().split()]
        told = _git("cat-file", "--batch", given="".join(f"{commit}:./{LOCK}\n" for commit in commits).encode())
        texts |= {text.decode() for text in _batch(told)}
    return {each["md5"]: each for text in texts for each in _data_folders(text, "outs")}


def _in_git() -> bool:
    """Whether git keeps this folder; RuntimeError where it does not say."""
    try:
        return bool(_git("rev-parse", "--git-dir"))
    except RuntimeError as error:
        if "not a git repository" in str(error):
            return False
        raise


def _git(*words: str, given: bytes = b"") -> bytes:
    environment = os.environ | {"LC_ALL": "C"}  # in the words that are looked for
    done = subprocess.run(["git", *words], input=given, capture_output=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(words)}: {done.stderr.decode().strip()}")
    return done.stdout


def _batch(told: bytes) -> Iterator[bytes]:
    """The contents in what `git cat-file --batch` tells; what it says is missing is passed over."""
    while told:
        head, _, told = told.partition(b"\n")
        if head.endswith(b" missing"):
            continue
        size = int(head.split()[-1])
        yield told[:size]
        told = told[size + 1 :]


def cache_folder() -> Path:
    """Where DVC's cache has its files, by MD5."""
    from dvc.exceptions import DvcException  # here: it takes a second, and stages have no need of it
    from dvc.repo import Repo

    try:
        with Repo(".") as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        raise RuntimeError(f"DVC's cache cannot be found: {error}") from error


def cached_file(cache: Path, folder_hash: str, name: str) -> bytes | None:
    """The content of a file of a version of a folder, out of DVC's cache; empty where that has no such file.

    None where the cache does not know.
    """
    listed = cache / folder_hash[:2] / folder_hash[2:]
    if not listed.is_file():
        return None
    md5 = {each["relpath"]: each["md5"] for each in json.loads(listed.read_text())}.get(name)
    if md5 is None:
        return b""
    path = cache / md5[:2] / md5[2:]
    return path.read_bytes() if path.is_file() else None
