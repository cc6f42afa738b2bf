"""Stage: what reads instructions and what looks at pictures, both trained on what the repository holds.

The reader of instructions learns from what `understanding/sentences/` holds, the estimator from clean tiles that are
degraded as the tasks say. Neither needs the backbone; `compress` puts them into the model.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipt.network import config
from ipt.pixels import to_unit
from ipt.understanding.estimator import TILE, Estimator, estimate, for_more_tasks, train_estimator, trust_clean
from ipt.understanding.instruction import InstructionModel, Reader, train_reader
from ipt.understanding.texture import texture
from ipt.weights import save_weights
from pipelines.cluster.naming import published
from pipelines.cluster.spread import several_nodes, spread
from pipelines.cluster.storage import Storage
from pipelines.common.files import replace_folder, write_json
from pipelines.common.params import Params, load_params
from pipelines.common.paths import CLEAN, METRICS, UNDERSTANDING
from pipelines.common.processes import Each, ordered_map, processes
from pipelines.common.stage import run
from pipelines.data.row_groups import RowGroups
from pipelines.data.tiles import open_tiles, read_tiles
from pipelines.understanding.corpus import Corpus
from pipelines.understanding.held_out import score_held_out
from pipelines.understanding.labelled import Damage, labelled_tile

SUMMARY = METRICS / "understand.json"
CHUNK = 64  # tiles made at once
TOGETHER = 16  # tiles whose texture is looked at together: of more, what lies between would leave the cache
SIDES = (64, 96, 128)  # pixels, of the tiles of a chunk, in turn


def understand(params: Params, clean: Path, target: Path) -> dict:
    """Train both on the tiles in `clean`, write their weights into the folder `target`, return how well they do."""
    storage, paths = Storage(params.ray.storage), [clean / f"{split}.parquet" for split in ("train", "val")]
    for path in paths:
        open_tiles(path, storage.here(clean))  # what is not there is told before minutes of training
    torch.manual_seed(params.seed)
    instruction = fit_instructions(params)
    with several_nodes(params.ray) as nodes:
        place = published(storage, clean) if nodes else storage.here(clean)
        train, val = (open_tiles(path, place) for path in paths)
        estimator = fit_estimator(params, train, val, spread if nodes else None)
    with replace_folder(target) as folder:
        save_weights(instruction, folder / "instruction.safetensors")
        save_weights(estimator, folder / "estimator.safetensors")
    tasks = list(params.tasks)
    return {
        "instructions": score_held_out(instruction, tasks),
        "tiles": score_estimator(estimator, tasks, labelled_images(params, val, 1)),
    }


def fit_instructions(params: Params) -> InstructionModel:
    """The reader of instructions, trained on drawn sentences; its readers at the same time, each in its process."""
    model = InstructionModel(len(params.tasks), params.understand.readers)
    jobs: list[tuple[Params, Any, int]] = [(params, reader, number) for number, reader in enumerate(model.readers)]
    with processes(len(jobs), each=1) as pool:
        for reader, state in zip(model.readers, ordered_map(pool, _fit_reader, jobs), strict=True):
            reader.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return model.eval()


def _fit_reader(job: tuple[Params, Reader, int]) -> dict[str, np.ndarray]:
    params, reader, number = job
    torch.set_num_threads(1)
    torch.manual_seed(params.seed + number)
    settings = params.understand
    corpus = Corpus({name: task.instructions for name, task in params.tasks.items()})
    batches = corpus.batches(params.seed + number, settings.sentences_per_step)
    losses = train_reader(reader, batches, settings.learning_rate, settings.sentence_steps)
    tell(losses, f"sentences, reader {number + 1}", settings.sentence_steps)
    return {name: value.numpy() for name, value in reader.state_dict().items()}


def fit_estimator(params: Params, train: RowGroups, val: RowGroups, each: Each | None = None) -> Estimator:
    """The estimator, trained on tiles degraded afresh, then made cautious on tiles that are clean; `each` as below."""
    settings = params.understand
    estimator = Estimator(len(_blind(params)))
    statistics, labels = training_tiles(params, train, each)
    tell(train_estimator(estimator, statistics, labels, settings.tile_steps, CHUNK * 4), "tiles", settings.tile_steps)
    estimator.eval()
    held_out = (to_unit(tile) for tile in clean_rows(val, settings.clean_tiles))
    trust_clean(estimator, held_out, settings.clean_share)
    return for_more_tasks(estimator, _blind(params), len(params.tasks))


def _blind(params: Params) -> list[int]:
    """The places in the task table of what a picture may ask for without words."""
    asked = params.understand.blind
    return [place for place, task in enumerate(params.tasks) if asked == "all" or task in asked]


def _damage(params: Params) -> Damage:
    recipes = [task.recipe for task in params.tasks.values()]
    return Damage([recipes[place] for place in _blind(params)], params.understand.visible)


def training_tiles(params: Params, tiles: RowGroups, each: Each | None = None) -> tuple[Tensor, Tensor]:
    """The statistics (N, statistics) and labels (N,) of labelled tiles; a function of params and clean tiles.

    A label is the place among the tasks that a picture may ask for, or their number. They are made by processes of
    this machine, or where `each` (a map) runs them.
    """
    settings = params.understand
    rows = clean_rows(tiles, settings.clean_tiles, each or map)
    damage = _damage(params)
    chunks = range(-(-settings.tiles // CHUNK))
    statistics, labels = [], []
    with processes(0 if each else len(chunks)) as pool:
        if each:  # where the rows are shared, each has all of them
            made = each(functools.partial(_chunk_of, rows, damage, params.seed), chunks)
        else:
            made = ordered_map(pool, _chunk, (_with_own_rows(rows, damage, params.seed, number) for number in chunks))
        for number, (of_chunk, label) in enumerate(made):
            statistics.append(torch.from_numpy(of_chunk))
            labels.append(torch.tensor(label))
            if number * 10 // len(chunks) != (number + 1) * 10 // len(chunks):
                print(f"understand: {(number + 1) * CHUNK} of {settings.tiles} tiles looked at", flush=True)
    return torch.cat(statistics), torch.cat(labels)


def _chunk_of(rows: list[np.ndarray], damage: Damage, seed: int, number: int) -> tuple[np.ndarray, list[int]]:
    return _chunk(_with_own_rows(rows, damage, seed, number))


def _with_own_rows(rows: list[np.ndarray], damage: Damage, seed: int, number: int) -> tuple:
    """A chunk's job with the clean tiles that it needs only: they travel to another process."""
    chosen = np.random.default_rng([seed, number]).integers(len(rows), size=CHUNK)
    return [rows[i] for i in chosen], damage, seed, number


def _chunk(job: tuple) -> tuple[np.ndarray, list[int]]:
    rows, damage, seed, number = job
    torch.set_num_threads(1)  # each process has one core
    rng = np.random.default_rng([seed, number, 1])
    pairs = [labelled_tile(row, SIDES[number % len(SIDES)], damage, rng) for row in rows]
    tiles = torch.from_numpy(np.stack([tile for tile, _ in pairs])).permute(0, 3, 1, 2)
    found = torch.cat([texture(part) for part in tiles.contiguous().split(TOGETHER)])
    return found.numpy(), [label for _, label in pairs]


def clean_rows(tiles: RowGroups, most: int, each: Each = map) -> list[np.ndarray]:
    """Up to `most` clean tiles, uint8 (H, W, 3), spread evenly over all; `each` (a map) reads some at a time."""
    there = int(tiles.rows.sum())
    if not there:
        raise ValueError(f"{tiles.paths[0]}: expected clean tiles, got none; `dvc repro -f prepare` makes them anew")
    chosen = np.linspace(0, there - 1, min(most, there)).round().astype(int)
    parts = np.array_split(chosen, -(-len(chosen) // CHUNK))
    return [tile for part in each(functools.partial(_clean, tiles), parts) for tile in part]


def _clean(tiles: RowGroups, numbers: np.ndarray) -> list[np.ndarray]:
    return [row["clean"] for row in read_tiles(tiles, numbers)]


def labelled_images(params: Params, tiles: RowGroups, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """Labelled tiles of held-out images: two for each clean one."""
    damage, labels = _damage(params), [*_blind(params), len(params.tasks)]
    for number, row in enumerate(clean_rows(tiles, params.understand.clean_tiles)):
        rng = np.random.default_rng([params.seed, seed, number])
        for _ in range(2):
            tile, label = labelled_tile(row, TILE, damage, rng)
            yield tile, labels[label]


def score_estimator(
    estimator: Estimator, tasks: list[str], images: Iterable[tuple[np.ndarray, int]]
) -> dict[str, float]:
    """Share of the labelled images whose damage (or cleanness) is the likeliest, by label."""
    right: dict[str, list[bool]] = {name: [] for name in (*tasks, config.CLEAN)}
    for image, label in images:
        right[list(right)[label]].append(int(estimate(estimator, image).argmax()) == label)
    return {name: round(float(np.mean(values)), 4) for name, values in right.items() if values}


def tell(losses: Iterable[float], what: str, steps: int) -> None:
    """Go through a training, saying five times how far it is."""
    every = max(steps // 5, 1)
    started = time.perf_counter()
    for first in range(0, steps, every):
        part = list(itertools.islice(losses, every))
        print(
            f"understand: {what}, step {first + len(part)} of {steps}, loss {np.mean(part):.3f}, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )


def main() -> None:
    """Read params.yaml, train both and write weights and scores."""
    params = load_params()
    scores = understand(params, CLEAN, UNDERSTANDING)
    write_json(SUMMARY, scores)
    for name, values in (*scores["instructions"].items(), ("tiles", scores["tiles"])):
        print(f"understand: {name}: " + ", ".join(f"{kind} {share:.1%} right" for kind, share in values.items()))
    print(f"understand: weights in {UNDERSTANDING}, scores in {SUMMARY}")


if __name__ == "__main__":
    run(main, __doc__)
