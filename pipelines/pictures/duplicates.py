"""Near-duplicate pictures by perceptual hash, in time that grows gently with their number."""

from __future__ import annotations

import itertools
from array import array

import cv2
import numpy as np

HASH_BITS = 64
_LONG = 24  # hashes from which on numpy compares them sooner


def perceptual_hash(image: np.ndarray) -> int:
    """Return the 64-bit DCT hash of a float32 (H, W, 3) RGB image in [0, 1].

    The signs, about their median, of the 8 x 8 lowest frequencies of the 32 x 32 gray picture:
    nearly unchanged by resizing and re-encoding (Zauner 2010, "Implementation and benchmarking of
    perceptual image hash functions").
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:8, :8]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


class Seen:
    """The hashes seen so far, and whether a new one is within `bits` of any of them.

    Two hashes that differ in at most k bits are equal in at least one of k + 1 chunks, so only
    hashes that share a chunk are compared (Norouzi, Punjani & Fleet 2012, multi-index hashing). A hash takes 8 bytes in
    each of k + 1 tables.
    """

    def __init__(self, bits: int) -> None:
        """Take `bits`, the largest distance of duplicates, 0 to 63; ValueError outside."""
        if not 0 <= bits < HASH_BITS:
            raise ValueError(f"duplicate_bits: expected 0 to {HASH_BITS - 1}, got {bits}")
        self._bits = bits
        edges = [HASH_BITS * i // (bits + 1) for i in range(bits + 2)]
        self._chunks = [(low, (1 << (high - low)) - 1) for low, high in itertools.pairwise(edges)]
        self._tables: list[dict[int, array[int]]] = [{} for _ in self._chunks]

    def add(self, code: int) -> bool:
        """Add a hash unless one within the distance is there; return whether it was added."""
        buckets = [
            table.setdefault((code >> low) & mask, array("Q"))
            for table, (low, mask) in zip(self._tables, self._chunks, strict=True)
        ]
        if any(self._has_near(bucket, code) for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.append(code)
        return True

    def _has_near(self, bucket: array[int], code: int) -> bool:
        if len(bucket) < _LONG:
            return any((code ^ other).bit_count() <= self._bits for other in bucket)
        return bool((np.bitwise_count(np.frombuffer(bucket, np.uint64) ^ np.uint64(code)) <= self._bits).any())
