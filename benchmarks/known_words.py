"""The words that the reader of instructions knows beside those of its sentences: GloVe's vectors, made small.

    python -m benchmarks.known_words glove.6B.50d.txt

glove.6B.50d.txt is of https://nlp.stanford.edu/data/glove.6B.zip (public domain: PDDL 1.0). Kept are the words of the
training sentences that it has, and of its other 40,000 commonest those that are most like some of these. Only for a
reader to come: what is trained belongs to the vectors that are there (ipt/understanding/known_words.py).
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ipt.understanding.instruction import words
from ipt.understanding.known_words import STEP, VECTORS
from pipelines.understanding.corpus import SENTENCES
from pipelines.understanding.words import read

LINES = 60_000  # that are read: the commonest words
COMMON = 40_000  # of these words without figures or marks, those that may be chosen unseen
SIZE = 16_384


def known_words(glove: Path) -> tuple[list[str], np.ndarray]:
    """The chosen words, commonest first, and their vectors, int8 (SIZE, 50) in units of STEP."""
    names, rows = _read_glove(glove)
    counts = Counter(word for path in sorted(SENTENCES.glob("*.yaml")) for word in _words_in(read(path)))
    seen = [number for number, name in enumerate(names) if name in counts]
    anchors = rows[[number for number in seen if counts[names[number]] > 1]]
    others = np.array([number for number in range(COMMON) if names[number] not in counts])
    alike = np.concatenate([np.sort(part @ anchors.T, 1)[:, -3:].mean(1) for part in np.array_split(rows[others], 20)])
    chosen = sorted([*seen, *others[np.argsort(-alike, kind="stable")[: SIZE - len(seen)]]])
    scaled = rows[chosen] * np.sqrt(rows.shape[1]) / STEP
    return [names[number] for number in chosen], scaled.round().clip(-127, 127).astype(np.int8)


def _read_glove(path: Path) -> tuple[list[str], np.ndarray]:
    """Words of letters alone and their vectors, float32, centred, turned to principal axes, of length 1."""
    with path.open(encoding="utf-8") as file:
        lines = [line.split() for line, _ in zip(file, range(LINES), strict=False)]
    kept = [line for line in lines if re.fullmatch("[a-z]{2,}", line[0])]
    rows = np.array([line[1:] for line in kept], np.float32)
    rows -= rows[:20_000].mean(0)
    rows = rows @ np.linalg.svd(rows[:20_000], full_matrices=False)[2].T
    return [line[0] for line in kept], rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _words_in(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return words(tree)
    return [word for part in (tree.values() if isinstance(tree, dict) else tree) for word in _words_in(part)]


def main() -> None:
    """Write ipt/understanding/known_words.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glove", type=Path)
    names, vectors = known_words(parser.parse_args().glove)
    save_file({"vectors": torch.from_numpy(vectors)}, VECTORS, {"words": " ".join(names)})
    print(f"{VECTORS}: {len(names)} words, {VECTORS.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
