"""Writing files and folders so that a killed run leaves the last good state: temporary name first, then rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipt.files import replace_file


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a fresh temporary folder beside `target`; it becomes `target` when the block ends without error.

    What an earlier killed run left under a temporary name beside `target` is removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        shutil.rmtree(leftover)
    temporary = target.with_name(f".{target.name}.partial-{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with replace_file(target) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
