"""Writing a file so that a killed run leaves the last good one: temporary name first, then rename."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_file(target: Path, like: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it becomes `target` when the block ends without error.

    Its name is nobody else's, also on a disk that several machines share, and begins with a dot. What it holds is on
    the disk before it gets its name. Who may read it: as with `like`, or where that is None with the file it replaces,
    else as with any new file; on Windows the folder decides.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    pattern = like or (target if target.is_file() else None)
    temporary = target.with_name(f".{secrets.token_hex(8)}.partial")
    number = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if pattern else 0o666)
    try:
        mode = (pattern.stat() if pattern else os.fstat(number)).st_mode & 0o777
        os.close(number)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if sys.platform != "win32":  # where it could only be made read-only, which nothing replaces
            temporary.chmod(mode)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
