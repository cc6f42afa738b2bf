"""Models by name: the released one, a checkpoint folder, or one that an installed package fetches.

The folder `released` beside this file holds the model that comes with the package.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

from ipt import RELEASED
from ipt.network.checkpoint import CHECKSUMS, load_network
from ipt.network.task_network import TaskNetwork
from ipt.weights import CheckpointError

FETCHERS = "ipt.models"  # entry points: by scheme, functions from SCHEME:/NAME and a folder to a checkpoint folder


def pretrained_network(source: Path | str) -> TaskNetwork:
    """The network alone of what `InstructIPT.from_pretrained` reads, or of a model that is not compressed yet.

    Raises what `from_pretrained` does.
    """
    with checkpoint_folder(str(source)) as folder:
        return load_network(folder)


@contextmanager
def checkpoint_folder(source: str) -> Iterator[Path]:
    """The folder that `source` names; one that is fetched lasts as long as the block."""
    scheme, colon, _ = source.partition(":/")
    if source == RELEASED:
        yield _released_folder()
        return
    if not colon or Path(source).exists():
        yield Path(source)
        return
    fetchers = entry_points(group=FETCHERS, name=scheme)
    if not fetchers:
        known = ", ".join(f"{name}:/" for name in sorted(entry_points(group=FETCHERS).names))
        raise ValueError(f"{source}: nothing installed here reads {scheme}:/ (known: {known or 'folders only'})")
    try:
        fetch = next(iter(fetchers)).load()
    except ImportError as error:  # of a package whose own requirements are not all here
        raise ValueError(f"{source}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="instruct-ipt-") as folder:
        yield fetch(source, Path(folder))


def _released_folder() -> Path:
    folder = Path(__file__).parent / "released"
    if not (folder / CHECKSUMS).is_file():
        raise CheckpointError(
            f"{folder}: the model that comes with this package is not there (no {CHECKSUMS}); install the package again"
        )
    return folder
