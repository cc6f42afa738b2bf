"""Writing files and folders so that a killed run leaves the last good state: temporary name first, then rename."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipt.files import claimed, held, if_nobodys, replace_file, sync_names

_PARTIAL, _OLD = "partial", "old"
_AT_CWD, _EXCHANGE = -100, 2  # of renameat2(2)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a fresh temporary folder beside `target`; it becomes `target` when the block ends without error.

    It changes places with the folder that was there, in one step where the system can; else that one is renamed away
    before, and where a run was killed between the two, the next call puts it back. What killed runs left under
    temporary names is removed, what others are writing now is not. All of it is on the disk before it gets its name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _settle(target)

    def make() -> Path:
        path = _beside(target, _PARTIAL)
        path.mkdir()
        return path

    with claimed(make) as temporary:
        try:
            yield temporary
            sync_folder(temporary)
            _swap(temporary, target)
            sync_names(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}-{secrets.token_hex(8)}")


def _swap(temporary: Path, target: Path) -> None:
    """`temporary` to `target`; what is there comes in its place or is removed, and comes back where that fails."""
    if not target.exists():
        os.replace(temporary, target)
        return
    if _exchange(temporary, target):
        return
    old = _beside(target, _OLD)
    with held(target):
        os.replace(target, old)
        try:
            os.replace(temporary, target)
        except OSError:
            os.replace(old, target)
            raise
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, so that there is one at any moment; False where that cannot be."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and not rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE)


def _settle(target: Path) -> None:
    """Put back what a killed run had renamed away, and remove what such runs left."""
    name = glob.escape(target.name)
    for old in target.parent.glob(f".{name}.{_OLD}-*"):
        with if_nobodys(old) as nobodys:
            if nobodys and target.exists():
                shutil.rmtree(old)
            elif nobodys:
                os.replace(old, target)
    for partial in target.parent.glob(f".{name}.{_PARTIAL}-*"):
        with if_nobodys(partial) as nobodys:
            if nobodys:
                shutil.rmtree(partial)


def sync_folder(folder: Path) -> None:
    """Have all that lies below `folder` on the disk, content and names."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_names(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_names(folder)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with replace_file(target) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
