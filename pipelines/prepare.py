"""Stage: sources -> clean tiles, without duplicates, split by picture into train and val.

Run as `python -m pipelines.prepare`. Writes data/clean/ and metrics/prepare.json. In data/clean are train.parquet and
val.parquet, with rows of pipelines.data.rows.CLEAN_COLUMNS, or, where `ray.storage` is shared, the manifest of such
shards, which the nodes of the cluster write there; and quarantine.csv.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.common.files import replace_folder, write_json
from pipelines.common.manifest import write_manifest
from pipelines.common.paths import CLEAN, METRICS
from pipelines.common.processes import Each, ordered_map, processes
from pipelines.common.stage import run
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.pictures.cutting import TILE_COUNTS, Counts, Sieve, cut_picture
from pipelines.pictures.mixing import mixed, shuffled
from pipelines.pictures.selection import (
    Bad,
    Usable,
    check_bad,
    inspect_pictures,
    split_pictures,
    without_duplicates,
    write_quarantine,
)
from pipelines.pictures.sources import Picture, SourceError, is_uri, list_pictures
from pipelines.pictures.tiles import Tile

if TYPE_CHECKING:
    from pipelines.cluster.storage import Patience, Storage
    from pipelines.common.params import Prepare

COUNTS = METRICS / "prepare.json"

Splits = dict[str, list[Picture]]  # by name
WriteTiles = Callable[[Path, Splits], dict[str, Counts]]  # into a folder; the counts by split


def prepare(settings: Prepare, seed: int, target: Path) -> dict[str, Any]:
    """Write clean tiles of all sources as Parquet below `target`; return counts of what was done.

    Near-duplicate pictures are dropped over all sources, then each source is split by picture, then
    pictures are cut into tiles, and the tiles of all sources are mixed. The bytes written depend
    only on the arguments and the pictures. `target` is replaced only when all is done. Raises
    SourceError when a source has nothing usable or more bad files than allowed (they are listed in
    `<target>.quarantine.csv` then), and when nothing would be left to validate on.
    """
    pictures = _list(settings, seed)
    with processes(len(pictures)) as pool:
        write = partial(_write_files, settings=settings, seed=seed, pool=pool)
        return _make(settings, seed, target, pictures, partial(ordered_map, pool), write)


def prepare_on_nodes(
    settings: Prepare, seed: int, target: Path, storage: Storage, patience: Patience
) -> dict[str, Any]:
    """As `prepare`, on all nodes of the connected cluster, which write the tiles to the shared `storage`.

    Tiles, their order and the counts are the same; `target` has the manifest of their shards. Folders on this machine
    are copied to the storage first; those behind a URI each node reads itself. `patience` is with a storage or source
    that is away.
    """
    from pipelines.cluster.naming import keeping
    from pipelines.cluster.spread import spread_small

    folders = {source.folder.path for source in settings.sources if source.folder and not is_uri(source.folder.path)}
    pictures = _list(settings, seed)
    places = {folder: storage.publish(Path(folder)) for folder in folders}
    pictures = [replace(each, place=places.get(each.source, each.place)) for each in pictures]

    def each(function: Callable[[Picture], Any], items: Iterable[Picture]) -> Iterator[Any]:
        return spread_small(partial(patience, function), items)

    write = partial(_write_shards, settings=settings, seed=seed, patience=patience)
    with keeping(storage, target):
        return _make(settings, seed, target, pictures, each, write)


def _list(settings: Prepare, seed: int) -> list[Picture]:
    pictures = [p for source in settings.sources for p in list_pictures(source, seed)]
    _check_pictures(pictures, settings.tile)
    return pictures


def _make(
    settings: Prepare, seed: int, target: Path, pictures: list[Picture], each: Each, write: WriteTiles
) -> dict[str, Any]:
    """Choose among `pictures`, have `write` make their tiles, and count."""
    quarantine = target.with_name(f"{target.name}.quarantine.csv")
    usable, bad = inspect_pictures(pictures, settings.tile, settings.stride, each)
    check_bad(pictures, bad, settings.max_bad_share, quarantine)
    unique = without_duplicates(usable, settings.duplicate_bits)
    splits = split_pictures(unique, settings.val_share, seed)
    with replace_folder(target) as folder:
        write_quarantine(folder / "quarantine.csv", bad)
        counts = write(folder, splits)
    quarantine.unlink(missing_ok=True)
    return _report(pictures, usable, bad, splits, counts)


def _check_pictures(pictures: list[Picture], tile: int) -> None:
    names = Counter((picture.source, picture.name) for picture in pictures)
    for (source, name), count in names.items():
        if count > 1:
            raise SourceError(
                f"prepare.sources: {source} is listed more than once (both times with {name!r}); "
                "list it once, with all its scales"
            )
    for picture in pictures:
        if picture.path is None and picture.size < tile:
            raise SourceError(
                f"prepare.sources: {picture.source}: size: expected prepare.tile ({tile}) or more, got {picture.size}"
            )


def _write_files(
    folder: Path, splits: Splits, *, settings: Prepare, seed: int, pool: Executor | None
) -> dict[str, Counts]:
    """Write the tiles of each split, mixed, to a Parquet file."""
    schema = row_schema(CLEAN_COLUMNS, settings.tile, settings.tile)
    cut = partial(cut_picture, tile=settings.tile, stride=settings.stride)
    counts = {}
    for split, pictures in splits.items():
        order, rng = shuffled(split, pictures, seed)
        sieve = Sieve(settings)
        tiles = (tile for batch in ordered_map(pool, cut, order) for tile in batch)
        kept = mixed((tile for tile in tiles if sieve.keeps(tile.source, tile.code, tile.deviation)), rng)
        write_rows(folder / f"{split}.parquet", _tile_rows(kept, settings.tile), schema, settings.row_group_rows)
        counts[split] = sieve.counts
    return counts


def _write_shards(
    folder: Path, splits: Splits, *, settings: Prepare, seed: int, patience: Patience
) -> dict[str, Counts]:
    """Have the nodes write the tiles of all splits as shards; the folder gets their manifest."""
    from pipelines.pictures.tile_shards import TileShards

    files, counts = [], {}
    for split, pictures in splits.items():
        written, counts[split] = TileShards(split, settings, seed, patience).write(pictures)
        files += written
    write_manifest(folder, files)
    return counts


def _tile_rows(tiles: Iterable[Tile], side: int) -> Iterator[dict[str, Any]]:
    for tile in tiles:
        yield {"image_id": tile.image_id, "source": tile.source, "clean": tile.clean, "height": side, "width": side}


def _report(
    pictures: list[Picture],
    usable: list[Usable],
    bad: list[Bad],
    splits: dict[str, list[Picture]],
    counts: dict[str, Counts],
) -> dict[str, Any]:
    """Counts in all, and by source and split, as plain JSON values."""
    unique = sum(len(chosen) for chosen in splits.values())
    report: dict[str, Any] = {
        "images": unique,
        "duplicate_images_dropped": len(usable) - unique,
        "quarantined": len(bad),
    }
    for what in TILE_COUNTS:
        report[what] = sum(count[key] for count in counts.values() for key in count if key[1] == what)
    quarantined = Counter(picture.source for picture, _ in bad)
    images = Counter((split, p.source) for split, chosen in splits.items() for p in chosen)
    report["sources"] = {
        source: {"quarantined": quarantined[source]}
        | {
            split: {"images": images[split, source]} | {what: count[source, what] for what in TILE_COUNTS}
            for split, count in counts.items()
        }
        for source in dict.fromkeys(picture.source for picture in pictures)
    }
    return report


def _summary(report: dict[str, Any]) -> str:
    lines = [
        f"prepare: {report['images']} pictures -> {report['tiles']} tiles "
        f"(dropped: {report['duplicate_images_dropped']} duplicate pictures, "
        f"{report['duplicate_tiles_dropped']} duplicate and {report['flat_dropped']} flat tiles)"
    ]
    for source, splits in report["sources"].items():
        numbers = ", ".join(
            f"{split} {splits[split]['images']} pictures, {splits[split]['tiles']} tiles" for split in ("train", "val")
        )
        lines.append(f"  {source}: {numbers}")
        if splits["val"]["images"] == 0:
            lines.append(f"  {source}: too few different pictures to hold one out: all go to train")
    if report["quarantined"]:
        lines.append(f"  {report['quarantined']} bad files: see {CLEAN / 'quarantine.csv'}")
    lines.append(f"wrote {CLEAN}; counts in {COUNTS}")
    return "\n".join(lines)


def main() -> None:
    """Run the stage with params.yaml."""
    # Here, because every worker process imports this module: params imports all degradations, and Ray takes seconds.
    from pipelines.cluster.storage import Patience, Storage, say
    from pipelines.common.params import load_params

    params = load_params()
    storage = Storage(params.ray.storage)
    if storage.only_shared:
        from pipelines.cluster.connection import connected

        patience = Patience(storage.place, params.ray.storage_patience, say)
        with connected():
            report = prepare_on_nodes(params.prepare, params.seed, CLEAN, storage, patience)
    else:
        report = prepare(params.prepare, params.seed, CLEAN)
    write_json(COUNTS, report)
    print(_summary(report))


if __name__ == "__main__":
    run(main, __doc__)
