"""What pictures may take of the memory that is free: one budget for each program, in shares that fit all at once."""

from __future__ import annotations

from dataclasses import dataclass

from ipt.photos.child import Limits
from ipt.photos.images import MAX_PIXELS
from ipt.restoring.free_memory import free_memory

FILES, NETWORK = 0.4, 0.5  # of what is free; the rest is for requests, results and copies of the model
LEAST_FILE, LEAST_TILE = 192_000_000, 48_000_000  # bytes: a JPEG of 12 megapixels, a tile as small as they get
PROCESS = 64_000_000  # bytes of a process that reads files, without a file


@dataclass(frozen=True)
class Share:
    """How many may work at once, and bytes for each of them."""

    count: int
    each: int


@dataclass(frozen=True)
class MemoryBudget:
    """`whole` bytes, shared out between the processes that read files and the network."""

    whole: int

    @classmethod
    def of_what_is_free(cls) -> MemoryBudget:
        """Of the machine's memory or the control group's (`ipt.restoring.free_memory`), as it is now: ask once."""
        return cls(free_memory())

    def files(self, most: int) -> Share:
        """For up to `most` processes that read and write files, fewer where there is too little for so many."""
        return _share(int(self.whole * FILES), most, LEAST_FILE)

    def files_alone(self) -> Share:
        """For one process, in a program that reads, restores and writes one file after the other."""
        return Share(1, int(self.whole * (FILES + NETWORK)))

    def network(self, most: int) -> Share:
        """For up to `most` tiles or batches at once, fewer where there is too little for so many."""
        return _share(int(self.whole * NETWORK), most, LEAST_TILE)


def file_limits(share: Share, pixels: int = MAX_PIXELS, seconds: float | None = None) -> Limits:
    """The limits of each process of a share of `MemoryBudget.files`, for pictures of up to `pixels`."""
    return Limits.of(pixels, max(share.each - PROCESS, PROCESS), seconds)


def _share(whole: int, most: int, least: int) -> Share:
    count = max(min(most, whole // least), 1)
    return Share(count, whole // count)
