"""Stage: sources -> clean tiles, without duplicates, split by picture into train and val.

Run as `python -m pipelines.prepare`. Writes data/clean/ (train.parquet and val.parquet with rows of
pipelines.data.rows.CLEAN_COLUMNS, and quarantine.csv) and metrics/prepare.json.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.common.files import replace_folder, write_json
from pipelines.common.paths import CLEAN, METRICS
from pipelines.common.processes import ordered_map, processes
from pipelines.common.stage import run
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.pictures.duplicates import Seen
from pipelines.pictures.selection import (
    Bad,
    Usable,
    check_bad,
    inspect_pictures,
    split_pictures,
    without_duplicates,
    write_quarantine,
)
from pipelines.pictures.sources import Picture, SourceError, list_pictures, read_picture
from pipelines.pictures.tiles import Tile, cut_tiles

if TYPE_CHECKING:
    from pipelines.common.params import Prepare

COUNTS = METRICS / "prepare.json"
_SHUFFLE_TILES = 2048  # held in memory while mixing: about 100 MB of 128-pixel tiles

_TILE_COUNTS = ("tiles", "flat_dropped", "duplicate_tiles_dropped")

Counts = Counter[tuple[str, str]]  # by (source, what is counted)


def prepare(settings: Prepare, seed: int, target: Path) -> dict[str, Any]:
    """Write clean tiles of all sources as Parquet below `target`; return counts of what was done.

    Near-duplicate pictures are dropped over all sources, then each source is split by picture, then
    pictures are cut into tiles, and the tiles of all sources are mixed. The bytes written depend
    only on the arguments and the pictures. `target` is replaced only when all is done. Raises
    SourceError when a source has nothing usable or more bad files than allowed (they are listed in
    `<target>.quarantine.csv` then), and when nothing would be left to validate on.
    """
    pictures = [p for source in settings.sources for p in list_pictures(source, seed)]
    _check_pictures(pictures, settings.tile)
    quarantine = target.with_name(f"{target.name}.quarantine.csv")
    with processes(len(pictures)) as pool:
        usable, bad = inspect_pictures(pictures, settings.tile, pool)
        check_bad(pictures, bad, settings.max_bad_share, quarantine)
        unique = without_duplicates(usable, settings.duplicate_bits)
        splits = split_pictures(unique, settings.val_share, seed)
        with replace_folder(target) as folder:
            write_quarantine(folder / "quarantine.csv", bad)
            counts = {
                split: _write_split(folder / f"{split}.parquet", chosen, settings, seed, pool)
                for split, chosen in splits.items()
            }
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


class _Sieve:
    """Decides tile after tile which to keep, and counts."""

    def __init__(self, settings: Prepare) -> None:
        self._settings = settings
        self._seen = Seen(settings.duplicate_bits)
        self.counts: Counts = Counter()

    def keeps(self, tile: Tile) -> bool:
        """Whether `tile` is neither one flat tile too many nor like a tile kept before; counts it either way."""
        flat = tile.deviation < self._settings.flat_std
        # A running share: it holds at every moment without knowing how many tiles will come.
        most = self._settings.max_flat_share * (self.counts[tile.source, "tiles"] + 1)
        if flat and self.counts[tile.source, "flat"] + 1 > most:
            self.counts[tile.source, "flat_dropped"] += 1
            return False
        if not self._seen.add(tile.code):
            self.counts[tile.source, "duplicate_tiles_dropped"] += 1
            return False
        self.counts[tile.source, "tiles"] += 1
        self.counts[tile.source, "flat"] += flat
        return True


def _write_split(path: Path, pictures: list[Picture], settings: Prepare, seed: int, pool: Executor | None) -> Counts:
    """Write the tiles of `pictures`, mixed, to a Parquet file and return the counts."""
    rng = np.random.default_rng((seed, zlib.crc32(f"order {path.name}".encode())))
    shuffled = [pictures[index] for index in rng.permutation(len(pictures))]
    cut = partial(_cut, tile=settings.tile, stride=settings.stride)
    sieve = _Sieve(settings)
    tiles = (tile for batch in ordered_map(pool, cut, shuffled) for tile in batch)
    kept = _mixed(filter(sieve.keeps, tiles), rng)
    schema = row_schema(CLEAN_COLUMNS, settings.tile, settings.tile)
    write_rows(path, _tile_rows(kept, settings.tile), schema, settings.row_group_rows)
    return sieve.counts


def _cut(picture: Picture, tile: int, stride: int) -> list[Tile]:
    # There are as many drawn pictures as one asks for; tiles that overlap would add nothing new.
    stride = stride if picture.path is not None else max(stride, tile)
    image = read_picture(picture)
    return list(cut_tiles(image, picture.source, picture.name, picture.scales, tile, stride))


def _mixed(tiles: Iterable[Tile], rng: np.random.Generator) -> Iterator[Tile]:
    """Yield the tiles in random order, as far as a buffer of _SHUFFLE_TILES allows."""
    buffer: list[Tile] = []
    for tile in tiles:
        buffer.append(tile)
        if len(buffer) > _SHUFFLE_TILES:
            place = int(rng.integers(len(buffer)))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            yield buffer.pop()
    for place in rng.permutation(len(buffer)):
        yield buffer[place]


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
    for what in _TILE_COUNTS:
        report[what] = sum(count[key] for count in counts.values() for key in count if key[1] == what)
    quarantined = Counter(picture.source for picture, _ in bad)
    images = Counter((split, p.source) for split, chosen in splits.items() for p in chosen)
    report["sources"] = {
        source: {"quarantined": quarantined[source]}
        | {
            split: {"images": images[split, source]} | {what: count[source, what] for what in _TILE_COUNTS}
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
    lines.append(f"wrote {CLEAN}/train.parquet, {CLEAN}/val.parquet; counts in {COUNTS}")
    return "\n".join(lines)


def main() -> None:
    """Run the stage with params.yaml."""
    # Here, because every worker process imports this module, and params imports all degradations.
    from pipelines.common.params import load_params

    params = load_params()
    report = prepare(params.prepare, params.seed, CLEAN)
    write_json(COUNTS, report)
    print(_summary(report))


if __name__ == "__main__":
    run(main, __doc__)
