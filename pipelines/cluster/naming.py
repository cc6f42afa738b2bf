"""Which files of a shared storage somebody needs: what its checkouts name, and who is at work there.

In the storage, beside the files themselves:

- `checkouts/ID/checkout.json` says where a checkout is, `checkouts/ID/HASH.jsonl` is a manifest that it has made or
  read, by the hash that DVC gives to the data folder that holds it. A file that none of them names is garbage.
- `busy/NAME.json` is there while somebody writes files that no manifest names yet, or while garbage is collected, and
  is written anew every few minutes. Each side puts its own before it looks for the other's, so at least one sees it.

All ages are those of the storage's own clock: of what is written there now, and of what is there.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipt.files import replace_file
from pipelines.cluster.storage import PAUSE, File, Storage, StorageError
from pipelines.common.manifest import has_manifest
from pipelines.common.paths import MANIFEST

CHECKOUTS, BUSY = "checkouts", "busy"
ABOUT = "checkout.json"
COLLECTOR = "collector"  # how the names of those begin who collect garbage
REFRESH, DEAD = 300.0, 3600.0  # seconds: between signs of life, without any
TEMPORARY = "/.dvc/tmp/"  # in the path of the copies of a checkout in which `dvc exp run --temp` and queues run


@contextmanager
def keeping(storage: Storage, target: Path) -> Iterator[None]:
    """Around the making of the data folder `target`, whose files go to the storage where that is a shared one.

    Inside, nobody collects garbage; at the end, this checkout names what is in `target`.
    """
    if not storage.only_shared:
        yield
        return
    with busy(storage, f"{checkout_id()}-{secrets.token_hex(4)}"):
        told = False
        while alive(storage, lambda name: name.startswith(COLLECTOR)):
            if not told:
                print(f"storage {storage.place}: waiting for who collects garbage there", flush=True)
            told = True
            time.sleep(PAUSE)
        yield
        register(storage, target)


@contextmanager
def collecting(storage: Storage) -> Iterator[None]:
    """Around the collection of garbage; StorageError while somebody else writes, or collects it too."""
    own = f"{COLLECTOR}-{secrets.token_hex(4)}"
    with busy(storage, own):
        others = alive(storage, lambda name: name != own)
        if others:
            where = ", ".join(sorted({storage.read_json(file.name) or "somebody" for file in others}))
            raise StorageError(
                f"{storage.place}: {where} writes data or collects garbage there now; collect it when that has ended"
            )
        yield


@contextmanager
def busy(storage: Storage, name: str) -> Iterator[None]:
    """Inside, `busy/NAME.json` says every few minutes that this process lives."""
    sign, ended = f"{BUSY}/{name}.json", threading.Event()

    def live() -> None:
        while not ended.wait(REFRESH):
            with suppress(OSError):  # away for a while: so it is for who would look
                storage.write_json(sign, _where())

    storage.write_json(sign, _where())
    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        storage.remove(sign)


def alive(storage: Storage, wanted: Callable[[str], bool]) -> list[File]:
    """The signs of those at work with a `wanted` name, but for those older than DEAD: of them a kill was the end."""
    named = ((file, Path(file.name)) for file in storage.files(BUSY))
    there = [file for file, path in named if path.suffix == ".json" and wanted(path.stem)]
    if not there:
        return []
    now = storage_now(storage)
    return [file for file in there if now - file.written < DEAD]


def storage_now(storage: Storage) -> float:
    """The time of the storage's own clock, by which all that is there was written."""
    name = f"clock-{secrets.token_hex(8)}"
    storage.write_json(f"{name}/now.json", None)
    try:
        (file,) = storage.files(name)
        return file.written
    finally:
        storage.remove(name)


def published(storage: Storage, folder: Path) -> str:
    """Where nodes read what is in `folder`, as `Storage.publish`; from now on this checkout needs it."""
    register(storage, folder)
    return storage.publish(folder)


def register(storage: Storage, folder: Path) -> None:
    """Say in the storage that this checkout needs the files that the manifest in `folder` names."""
    if storage.only_shared and has_manifest(folder):
        note(storage, dvc_hash(folder), (folder / MANIFEST).read_bytes())


def note(storage: Storage, name: str, manifest: bytes) -> None:
    """Say that this checkout needs what a manifest names, that of the data folder which DVC calls `name`."""
    own = f"{CHECKOUTS}/{checkout_id()}"
    if storage.read_json(f"{own}/{ABOUT}") != _where():
        storage.write_json(f"{own}/{ABOUT}", _where())
    storage.keep(f"{own}/{name}.jsonl", manifest)


def dvc_hash(folder: Path) -> str:
    """What dvc.lock will say of the folder: the MD5 of its files' names and MD5s, and `.dir`."""
    entries = [
        {"md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": name}
        for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
        if path.is_file()
    ]
    listed = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(listed, usedforsecurity=False).hexdigest()}.dir"


def checkout_id() -> str:
    """A name of this checkout that no other has, nor a copy of it elsewhere."""
    root = checkout_root()
    path = root / ".dvc/tmp/checkout"
    if not path.is_file():
        with replace_file(path) as temporary:
            temporary.write_text(secrets.token_hex(16))
    return hashlib.sha256(f"{path.read_text()} {_where()}".encode()).hexdigest()[:16]


def checkout_root() -> Path:
    """The top of the repository that this process stands in, or of which it stands in DVC's temporary copy."""
    return Path(f"{Path.cwd()}/".partition(TEMPORARY)[0])


def _where() -> str:
    return f"{socket.gethostname()}:{checkout_root()}"
