"""The files of a shared storage that no manifest of any checkout names, found and removed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.naming import ABOUT, CHECKOUTS, checkout_id, storage_now
from pipelines.cluster.storage import File, Storage
from pipelines.common.manifest import FILES, parse_manifest

AT_ONCE = 16  # files removed at the same time: each waits for an answer


@dataclass(frozen=True)
class Garbage:
    """What could go, and why the rest stays."""

    files: list[File]  # named by no manifest, and old enough
    released: list[str]  # manifests that this checkout said it needs, and that nothing in it names now
    all_files: int
    young: int  # files that are named by no manifest, and too young to be removed
    named_by: dict[str, int]  # manifests of each checkout, as `ID (HOST:FOLDER)`


def registered(storage: Storage) -> dict[str, list[File]]:
    """The manifests that each checkout has said it needs, by the checkout's ID."""
    found: dict[str, list[File]] = {}
    for file in storage.files(CHECKOUTS):
        if file.name.endswith(".jsonl"):
            found.setdefault(file.name.split("/")[1], []).append(file)
    return found


def find_garbage(
    storage: Storage, own: set[str], manifests: Iterable[bytes], age: float, forgotten: str | None = None
) -> Garbage:
    """What nobody needs: not this checkout, and no other (but one that is `forgotten`) that has said what it does.

    This one needs what is in `manifests`, and of those it has registered the ones of the hashes `own`, and those that
    are not older than `age`, in seconds. Nothing younger than that is garbage.
    """
    now, here = storage_now(storage), checkout_id()
    needed = {file.address for content in manifests for file in parse_manifest(content, Path("data"))}
    released, named_by = [], {}
    for checkout, files in registered(storage).items():
        if checkout == forgotten:
            released += [*(file.name for file in files), f"{CHECKOUTS}/{checkout}/{ABOUT}"]
            continue
        kept = 0
        for file in files:
            if checkout == here and Path(file.name).stem not in own and now - file.written > age:
                released.append(file.name)
                continue
            kept += 1
            needed |= {each.address for each in parse_manifest(storage.read(file.name), Path(file.name))}
        about = storage.read_json(f"{CHECKOUTS}/{checkout}/{ABOUT}") or "somewhere"
        named_by[f"{checkout} ({'this checkout, ' if checkout == here else ''}{about})"] = kept
    stored = list(storage.files(FILES))
    unnamed = [file for file in stored if file.name not in needed]
    old = [file for file in unnamed if now - file.written > age]
    return Garbage(old, released, len(stored), len(unnamed) - len(old), named_by)


def remove(storage: Storage, garbage: Garbage) -> None:
    """Remove it: the manifests first, so that nothing is named that is not there."""
    for name in garbage.released:
        storage.remove(name)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(storage.remove, [file.name for file in garbage.files]))
