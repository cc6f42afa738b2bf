"""Writing a file so that a killed run leaves the last good one: temporary name first, then rename."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

with suppress(ImportError):  # of Windows, where what killed runs left stays
    import fcntl


def is_there(path: Path) -> bool:
    """Whether there is something to keep: an empty file is what a full disk or a crash of the machine left."""
    return path.exists() and not (path.is_file() and path.stat().st_size == 0)


@contextmanager
def replace_file(target: Path, like: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it becomes `target` when the block ends without error.

    Its name is nobody else's, also on a disk that several machines share, and begins with a dot. What it holds is on
    the disk before it gets its name, and that is there for good when the block has ended. Who may read it: as with
    `like`, or where that is None with the file it replaces, else as with any new file; on Windows the folder decides.
    What a killed run left of this `target` is removed, what others write now is not.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    begin = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}."  # short: names may be as long as they can
    for left in target.parent.glob(f"{begin}*.partial"):
        with if_nobodys(left) as nobodys:
            if nobodys:
                left.unlink(missing_ok=True)
    pattern = like or (target if target.is_file() else None)

    def make() -> Path:
        path = target.with_name(f"{begin}{secrets.token_hex(8)}.partial")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if pattern else 0o666))
        return path

    with claimed(make) as temporary:
        try:
            mode = (pattern or temporary).stat().st_mode & 0o777
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if sys.platform != "win32":  # where it could only be made read-only, which nothing replaces
                temporary.chmod(mode)
            os.replace(temporary, target)
            sync_names(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_names(folder: Path) -> None:
    """Have the names in `folder` on the disk: a power cut would else bring back those of before.

    Nothing where the system cannot (Windows), the disk cannot or the folder is not ours to read.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def claimed(make: Callable[[], Path]) -> Iterator[Path]:
    """The file or folder that `make` makes under a name of its own, somebody's inside the block as in `held`."""
    while True:
        path = make()
        try:
            number = _locked(path)
        except FileNotFoundError:  # taken for a dead run's, between being made and being held
            continue
        try:
            if path.exists():
                yield path
                return
        finally:
            if number is not None:
                os.close(number)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Inside the block `if_nobodys` tells others that `path` is somebody's, by whatever name; who dies lets go.

    Raises FileNotFoundError where there is none.
    """
    number = _locked(path)
    try:
        yield
    finally:
        if number is not None:
            os.close(number)


def _locked(path: Path) -> int | None:
    """`path` open and locked, also by others who hold it."""
    if sys.platform == "win32":
        return None
    number = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # of a disk that knows no locks: there nobody gets one in `if_nobodys` either
        fcntl.flock(number, fcntl.LOCK_SH)
    return number


@contextmanager
def if_nobodys(path: Path) -> Iterator[bool]:
    """Whether who made `path` is dead; nobody can claim it inside the block. False where that cannot be known."""
    if sys.platform == "win32":
        yield False
        return
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:  # just now done, or not ours to read
        yield False
        return
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(number)
