"""Changes of bytes of no known structure, on which the others build."""

from __future__ import annotations

import random
from collections.abc import Callable

Change = Callable[[bytes, random.Random], bytes]
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 42, 43, 127, 128, 255, 256, 4096, 10_000, 32767, 32768, 65535, 65536)
NUMBERS += (3000 * 4000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = 60_000  # bytes of an input that grows no more


def copies(rng: random.Random, size: int, *numbers: int) -> int:
    """One of some numbers of copies of so many bytes, but for those that would make a large input."""
    return min(rng.choice(numbers), LARGE // max(size, 1))


def change_bytes(data: bytes, rng: random.Random, plain: Change) -> bytes:
    """A number that matters at any place, in any width and order, or a `plain` change, or bytes doubled or gone."""
    kind = rng.random()
    if kind < 0.4 or not data:
        return plain(data, rng)
    place = rng.randrange(len(data))
    if kind < 0.8:
        width, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
        number = (rng.choice(NUMBERS) + rng.choice((0, 0, 0, -1, 1))) % 256**width
        return data[:place] + number.to_bytes(width, order) + data[place + width :]
    end = min(len(data), place + rng.choice((1, 2, 4, 16, 200)))
    return data[:place] + data[place:end] * copies(rng, end - place, 0, 0, 2, 3, 40) + data[end:]
