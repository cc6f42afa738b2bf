"""A picture of a source to its tiles, and which of them are kept."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pipelines.pictures.duplicates import Seen
from pipelines.pictures.sources import Picture, read_picture
from pipelines.pictures.tiles import Tile, count_tiles, cut_tiles

if TYPE_CHECKING:  # worker processes import this module, and params imports all degradations
    from pipelines.common.params import Prepare

TILE_COUNTS = ("tiles", "flat_dropped", "duplicate_tiles_dropped")

Counts = Counter[tuple[str, str]]  # by (source, what is counted)


def cut_picture(picture: Picture, tile: int, stride: int) -> list[Tile]:
    """Read or draw a picture and cut it; the errors of `read_picture`."""
    stride = _stride(picture, tile, stride)
    return list(cut_tiles(read_picture(picture), picture.source, picture.name, picture.scales, tile, stride))


def promised_tiles(picture: Picture, size: tuple[int, int], tile: int, stride: int) -> int:
    """How many tiles `cut_picture` makes of a picture that has (height, width) `size` pixels."""
    return count_tiles(size, picture.scales, tile, _stride(picture, tile, stride))


def _stride(picture: Picture, tile: int, stride: int) -> int:
    # There are as many drawn pictures as one asks for; tiles that overlap would add nothing new.
    return stride if picture.path is not None else max(stride, tile)


class Sieve:
    """Decides tile after tile which to keep, and counts."""

    def __init__(self, settings: Prepare) -> None:
        self._settings = settings
        self._seen = Seen(settings.duplicate_bits)
        self.counts: Counts = Counter()

    def keeps(self, source: str, code: int, deviation: float) -> bool:
        """Whether a tile is neither one flat tile too many nor like a tile kept before; counts it either way."""
        flat = deviation < self._settings.flat_std
        # A running share: it holds at every moment without knowing how many tiles will come.
        most = self._settings.max_flat_share * (self.counts[source, "tiles"] + 1)
        if flat and self.counts[source, "flat"] + 1 > most:
            self.counts[source, "flat_dropped"] += 1
            return False
        if not self._seen.add(code):
            self.counts[source, "duplicate_tiles_dropped"] += 1
            return False
        self.counts[source, "tiles"] += 1
        self.counts[source, "flat"] += flat
        return True
