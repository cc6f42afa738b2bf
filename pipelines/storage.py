"""What lies in a shared `ray.storage`: whether all that the data here names is there, and removing what nobody names.

    python -m pipelines.storage check [--read]
    python -m pipelines.storage gc [--delete] [--hours 24] [--every-commit] [--forget CHECKOUT]

Garbage is what no manifest names: of this checkout's working tree, branches, tags, stashes and experiments, and of what
any other checkout that uses the storage has made or read there. Nothing younger than `--hours` is removed, and nothing
at all without `--delete`, or while somebody writes data there.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from pathlib import Path

from pipelines.cluster.garbage import Garbage, find_garbage, registered, remove
from pipelines.cluster.naming import checkout_id, collecting, dvc_hash, note
from pipelines.cluster.spread import several_nodes, spread
from pipelines.cluster.storage import Storage, StorageError
from pipelines.common.lock import cache_folder, cached_file, hashes_everywhere
from pipelines.common.manifest import FILES, DataFile, has_manifest, read_manifest, remake
from pipelines.common.params import Params, load_params
from pipelines.common.paths import CLEAN, MANIFEST, SHARDS
from pipelines.common.stage import command, run

HOURS = 24.0
SMALL = 2  # files in a data folder that may hold a manifest: with Parquet files it has more


def data_folders() -> list[Path]:
    """The data folders of the working tree that hold a manifest."""
    tasks = sorted(SHARDS.iterdir()) if SHARDS.is_dir() else []
    return [folder for folder in (CLEAN, *tasks) if has_manifest(folder)]


def check(params: Params, read: bool) -> bool:
    """Whether all files that the manifests here name are in the storage and as long as they say; says what is not.

    With `read`, whether they also hold what they say: all of them are read, on all nodes of a cluster.
    """
    storage, good = Storage(params.ray.storage), True
    there = {file.name: file.bytes for file in storage.files(FILES)}
    for folder in data_folders():
        files = read_manifest(folder)
        lost = [file for file in files if file.address not in there]
        bad = [file for file in files if there.get(file.address, file.bytes) != file.bytes]
        if read and not lost and not bad:
            with several_nodes(params.ray) as nodes:
                same = (spread if nodes else map)(functools.partial(is_whole, storage.place), files)
                bad = [file for file, whole in zip(files, same, strict=True) if not whole]
        if lost or bad:
            good = False
            names = ", ".join(file.name for file in (lost + bad)[:3])
            what = f"{len(lost)} of {len(files)} files are not in {storage.place}, {len(bad)} are others ({names}"
            print(f"storage: {folder}: {what}{', ...' if len(lost + bad) > 3 else ''}): remake it: `{remake(folder)}`")
        else:
            print(f"storage: {folder}: all {len(files)} files are there, {size(sum(file.bytes for file in files))}")
    return good


def is_whole(place: str, file: DataFile) -> bool:
    """Whether a file in the storage at `place` has the content that its name says."""
    return hashlib.sha256(Storage(place).read(file.address)).hexdigest() == file.sha256


def collect(storage: Storage, hours: float, every_commit: bool, delete: bool, forget: str | None) -> None:
    """Say what is garbage, and remove it with `delete`; `forget` names a checkout whose needs do not count any more."""
    if not storage.only_shared:
        raise StorageError(
            f"params.yaml.ray.storage: {storage.place} is no shared storage: DVC has the data (`dvc gc`)"
        )
    if forget is not None:
        check_other(storage, forget)
    own, manifests = needed_here(storage, every_commit)
    if not delete:
        tell(storage, find_garbage(storage, own, manifests.values(), hours * 3600, forget), hours, "would go: --delete")
        return
    with collecting(storage):
        for name, content in manifests.items():  # from now on others can see that they are needed here
            note(storage, name, content)
        garbage = find_garbage(storage, own, manifests.values(), hours * 3600, forget)
        remove(storage, garbage)
    tell(storage, garbage, hours, "removed")


def needed_here(storage: Storage, every_commit: bool) -> tuple[set[str], dict[str, bytes]]:
    """What DVC calls the data folders that this checkout needs, and those of their manifests that it has not noted.

    Raises StorageError where it cannot be known what a branch, tag or experiment names.
    """
    entries, there = hashes_everywhere(every_commit), registered(storage)
    own = {Path(file.name).stem for file in there.pop(checkout_id(), [])}
    noted = {Path(file.name).stem: file.name for files in there.values() for file in files}
    manifests = {dvc_hash(folder): (folder / MANIFEST).read_bytes() for folder in data_folders()}
    missing = [name for name in entries if name not in own and name not in manifests]
    cache, unknown = cache_folder() if missing else Path(), []
    for name in missing:
        content = storage.read(noted[name]) if name in noted else cached_file(cache, name, MANIFEST)
        if content:
            manifests[name] = content
        elif content is None and entries[name].get("nfiles", SMALL) <= SMALL:
            unknown.append(f"{entries[name]['path']} ({name[:8]})")
    if unknown:
        raise StorageError(
            f"some branch, tag or experiment has another {', '.join(sorted(unknown))}, and neither the storage nor "
            "DVC's cache knows what it names; get it: `dvc fetch --all-branches --all-tags`"
        )
    return {*entries, *manifests}, manifests


def check_other(storage: Storage, checkout: str) -> None:
    """Raise ValueError unless it is another checkout that has noted what it needs."""
    others = sorted({*registered(storage)} - {checkout_id()})
    if checkout not in others:
        raise ValueError(
            f"--forget {checkout}: expected another checkout of {storage.place}: {', '.join(others) or 'there is none'}"
        )


def tell(storage: Storage, garbage: Garbage, hours: float, end: str) -> None:
    """What was found, in lines."""
    for checkout, count in garbage.named_by.items():
        print(f"storage: {checkout} names {count} data folders")
    if garbage.young:
        print(f"storage: {garbage.young} files that none of them names are younger than {hours:g} hours: they stay")
    amount = size(sum(file.bytes for file in garbage.files))
    print(f"storage: of {garbage.all_files} files in {storage.place}, {len(garbage.files)}, {amount}, {end}")


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def main() -> None:
    """Read the command line and do what it says."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=command(), description=__doc__, formatter_class=raw)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_check = kinds.add_parser("check", help="whether all that the data here names is there")
    of_check.add_argument("--read", action="store_true", help="and whether it is what its name says: all is read")
    of_gc = kinds.add_parser("gc", help="what nobody names, and with --delete its removal")
    of_gc.add_argument("--delete", action="store_true", help="remove it; without, it is only told")
    of_gc.add_argument("--hours", type=float, default=HOURS, help=f"younger files stay (default {HOURS:g})")
    of_gc.add_argument("--every-commit", action="store_true", help="what any commit of a branch names stays too")
    of_gc.add_argument("--forget", metavar="CHECKOUT", help="a checkout that is no more: what it needs does not count")
    given = parser.parse_args()
    params = load_params()
    if given.kind == "gc":
        collect(Storage(params.ray.storage), given.hours, given.every_commit, given.delete, given.forget)
    elif not check(params, given.read):
        raise StorageError("not all data that the manifests here name is there")


if __name__ == "__main__":
    run(main)
