"""The rules between values of params.yaml, which no type can state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.common.params_errors import Place, unknown

if TYPE_CHECKING:
    from pipelines.common.params import Params

PREVIOUS = "previous"  # the alias of the version that was champion before


def broken_rules(params: Params) -> Iterator[tuple[Place, str]]:
    """Each place of `params` where a rule is broken, with what was expected and what came; types are right already."""
    for name in params.tasks:
        if not name.isidentifier():
            yield ("tasks", name), "expected a name of letters, digits and '_'"
    for number, source in enumerate(params.prepare.sources):
        kinds = [field.name for field in dataclasses.fields(source)]
        named = [kind for kind in kinds if getattr(source, kind) is not None]
        if len(named) != 1:
            what = f"expected exactly one of {', '.join(kinds)}; got {named or 'none'}"
            yield ("prepare", "sources", number), what
    crop, tile = params.ingest.crop, params.prepare.tile
    if crop > tile:
        yield ("ingest", "crop"), f"expected at most prepare.tile = {tile}, got {crop}"
    workers = params.ray.workers
    if isinstance(workers, tuple) and not 1 <= workers[0] <= workers[1]:
        yield ("ray", "workers"), f"expected [fewest, most] with 1 <= fewest <= most, got {list(workers)}"
    for number, pairs in enumerate(params.evaluate.real_pairs):
        if pairs.task not in params.tasks:
            yield ("evaluate", "real_pairs", number, "task"), unknown("task", pairs.task, params.tasks)
    alias = params.promote.alias
    if alias in (params.register.alias, PREVIOUS):
        what = f"expected another name than register.alias and '{PREVIOUS}', got '{alias}'"
        yield ("promote", "alias"), what
