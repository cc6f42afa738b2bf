"""Writing files and folders so that a killed run leaves the last good state: temporary name first, then rename."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipt.files import replace_file

_PARTIAL, _OLD = "partial", "old"


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a fresh temporary folder beside `target`; it becomes `target` when the block ends without error.

    The folder that was there is renamed away before, removed after; where a run was killed between the two, the next
    call puts it back. What killed runs left under temporary names is removed, what others are writing now is not.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _settle(target)
    temporary, old = (target.with_name(f".{target.name}.{kind}-{secrets.token_hex(8)}") for kind in (_PARTIAL, _OLD))
    temporary.mkdir()
    try:
        with _held(temporary):
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    _sync(path)
            _swap(temporary, target, old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path, old: Path) -> None:
    """`temporary` to `target`; what is there goes to `old` for a moment, and comes back where that fails."""
    if not target.exists():
        os.replace(temporary, target)
        return
    with _held(target):
        os.replace(target, old)
        try:
            os.replace(temporary, target)
        except OSError:
            os.replace(old, target)
            raise
    shutil.rmtree(old)


def _settle(target: Path) -> None:
    """Put back what a killed run had renamed away, and remove what such runs left."""
    for old in target.parent.glob(f".{target.name}.{_OLD}-*"):
        if _is_nobodys(old):
            if target.exists():
                shutil.rmtree(old)
            else:
                os.replace(old, target)
    for partial in target.parent.glob(f".{target.name}.{_PARTIAL}-*"):
        if _is_nobodys(partial):
            shutil.rmtree(partial)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Inside the block others see that `folder` is somebody's, by whatever name; a process that dies lets go."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_SH)
        yield
    finally:
        os.close(number)


def _is_nobodys(folder: Path) -> bool:
    try:
        number = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # just now done
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(number)
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with replace_file(target) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
