"""What a version's files were when it was registered: the SHA-256 of each, in a tag of the version.

The tag is in MLflow's database, not beside the files: who can write those, or a disk that fails, cannot change both.
"""

from __future__ import annotations

import json
from pathlib import Path

from ipt.network.checkpoint import sha256
from ipt.weights import CheckpointError

FILES = "files_sha256"  # tag of a version: JSON, the path of each file within the checkpoint and its SHA-256
TODO = (
    "put the files back that were registered, or use another version (`python -m pipelines.promote --rollback`), or "
    "register the model anew"
)


def file_hashes(checkpoint: Path) -> str:
    """The tag's value for a checkpoint folder: every file in it, at any depth."""
    return json.dumps(_hashes(checkpoint), sort_keys=True)


def check_files(checkpoint: Path, registered: str, version: str) -> None:
    """Raise CheckpointError unless a checkpoint has the files that `registered`, a version's tag, names, and no others.

    `version` is what the message calls it. Of a folder that others can write, check a copy, and load that.
    """
    try:
        expected = dict(json.loads(registered))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{version}: tag {FILES}: expected JSON of files and their SHA-256, got {registered[:60]!r}; {TODO}"
        ) from error
    found = _hashes(checkpoint)
    wrong = [
        _difference(path, expected.get(path), found.get(path))
        for path in sorted(expected.keys() | found.keys())
        if expected.get(path) != found.get(path)
    ]
    if wrong:
        raise CheckpointError(f"{version}: {'; '.join(wrong)}; {TODO}")


def _hashes(checkpoint: Path) -> dict[str, str]:
    paths = (path for path in checkpoint.rglob("*") if not path.is_dir())
    return {path.relative_to(checkpoint).as_posix(): sha256(path) for path in paths}


def _difference(path: str, expected: str | None, found: str | None) -> str:
    if found is None:
        return f"{path}: missing, registered with SHA-256 {str(expected)[:12]}..."
    if expected is None:
        return f"{path}: its SHA-256 is {found[:12]}..., and no file of this name was registered"
    return f"{path}: its SHA-256 is {found[:12]}..., registered was {str(expected)[:12]}...: damaged or changed"
