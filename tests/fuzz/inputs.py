"""The inputs that fuzzing begins with: what the code makes, what the repository keeps, what runs here have found."""

from __future__ import annotations

from pathlib import Path

from fuzz.seeds import seeds

KEPT = Path(__file__).parent / "corpus"


def inputs(target: str, folder: Path | None = None) -> dict[str, bytes]:
    """By name, those that the code makes and the repository keeps, and those in `folder`/corpus, of `make fuzz`."""
    places = [KEPT / target, *([folder / "corpus" / target] if folder else [])]
    return seeds(target) | {path.name: path.read_bytes() for place in places for path in sorted(place.glob("*"))}
