"""All that the gate wants to know of candidate and champion, measured by the same code on the same images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from ipt.model import InstructIPT
from pipelines.cluster.spread import several_nodes, spread
from pipelines.cluster.storage import Storage
from pipelines.common.params import Params
from pipelines.common.paths import SHARDS
from pipelines.common.processes import Each
from pipelines.data.pairs import Pairs, load_validation
from pipelines.scoring.real_pairs import present, read_real_pairs
from pipelines.scoring.scorecard import Score, Scorecard, to_score
from pipelines.scoring.scores import score_harm, score_pairs, score_sight
from pipelines.scoring.speed import seconds_per_megapixel
from pipelines.understanding.held_out import ALL, score_held_out


def measure(models: dict[str, InstructIPT], folders: dict[str, Path], params: Params) -> dict[str, Scorecard]:
    """The scorecard of each model (whose checkpoint is in its folder) on what this checkout holds out.

    Each is measured on those of its tasks that the candidate has, on the instructions that ask for none but those. A
    model without any of them gets no scorecard.
    """
    storage, known = Storage(params.ray.storage), models["candidate"].config.tasks
    pairs = load_validation(SHARDS, known, params.evaluate.tiles, {task: storage.here(SHARDS / task) for task in known})
    seconds = seconds_per_megapixel(models)
    with several_nodes(params.ray) as nodes:
        return _scorecards(models, folders, params, pairs, seconds, spread if nodes else map)


def _scorecards(
    models: dict[str, InstructIPT],
    folders: dict[str, Path],
    params: Params,
    pairs: Pairs,
    seconds: dict[str, float],
    each: Each,
) -> dict[str, Scorecard]:
    real = present(params.evaluate.real_pairs, "promote")
    asked = set.intersection(*(set(model.config.tasks) for model in models.values()))
    scorecards = {}
    for name, model in models.items():
        of_model = {task: of_task for task, of_task in pairs.items() if task in model.config.tasks}
        if not of_model:
            continue
        print(f"promote: measuring the {name}", flush=True)
        scorecards[name] = Scorecard(
            tasks={
                task: _score(model, task, functools.partial(list, of_task), each) for task, of_task in of_model.items()
            },
            real_pairs={
                every.name: _score(model, every.task, functools.partial(read_real_pairs, every, params.seed), each)
                for every in real
                if every.task in of_model
            },
            understood=score_held_out(model.instruction, list(model.config.tasks), asked)[ALL]["understood"],
            harm=score_harm(model, of_model, each),
            megabytes=sum(path.stat().st_size for path in folders[name].iterdir()) / 1e6,
            seconds_per_megapixel=seconds[name],
        )
    return scorecards


def _score(model: InstructIPT, task: str, pairs: Callable[[], Iterable], each: Each) -> Score:
    score = score_pairs({"restored": model}, task, pairs(), each)
    return to_score(task, score | {"seen": score_sight(model, task, pairs())}, "restored")
