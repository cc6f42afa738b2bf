"""What a candidate has to keep to, row by row: the champion's scores, absolute floors where it has none, and limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.common.params import Promote
from pipelines.scoring.scorecard import Score, Scorecard

EXACT = 1e-9  # what rounding may make of two equal numbers
LACKS = "the candidate lacks this task"


@dataclass(frozen=True)
class Row:
    """One thing measured, the champion's value (None where it has none) and the bar for the candidate's."""

    name: str
    candidate: float | None  # None, as the bar, where the candidate lacks the task
    champion: float | None
    bar: float | None
    at_least: bool  # or at most
    why: str

    @property
    def passed(self) -> bool:
        """Whether the candidate is on the right side of the bar; not-a-number never is."""
        if self.candidate is None or self.bar is None:
            return False
        if self.at_least:
            return self.candidate >= self.bar - EXACT
        return self.candidate <= self.bar + EXACT

    def cells(self) -> tuple[str, ...]:
        """Name, champion, candidate, bar with its reason, and verdict, as text."""
        sign = ">=" if self.at_least else "<="
        return (
            self.name,
            _number(self.champion),
            _number(self.candidate),
            f"{sign} {_number(self.bar)} ({self.why})",
            "pass" if self.passed else "FAIL",
        )


def judge(candidate: Scorecard, champion: Scorecard | None, lost: list[str], limits: Promote) -> list[Row]:
    """All rows. Tasks that the champion lacks are held to the floors; `lost` ones, which only it has, fail."""
    return [
        *(Row(f"psnr/{task}", None, None, None, True, LACKS) for task in lost),
        *_psnr_rows(candidate, champion, limits),
        *_understanding_rows(candidate, champion, limits),
        *_harm_rows(candidate, champion, limits),
        *_cost_rows(candidate, champion, limits),
    ]


def failures(rows: list[Row]) -> list[str]:
    """The names of the rows that fail."""
    return [row.name for row in rows if not row.passed]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    lines = [("", "champion", "candidate", "bar", ""), *(row.cells() for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(5)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _psnr_rows(candidate: Scorecard, champion: Scorecard | None, limits: Promote) -> Iterator[Row]:
    yield from _psnr_of_each(candidate.tasks, champion.tasks if champion else {}, limits)
    yield from _psnr_of_each(candidate.real_pairs, champion.real_pairs if champion else {}, limits)
    common = shared_tasks(candidate, champion)
    if champion and common:
        beside = champion.mean(common)
        why = f"champion - {limits.mean_loss:g} dB"
        yield Row("psnr/mean", candidate.mean(common), beside, beside - limits.mean_loss, True, why)
    else:
        tasks = list(candidate.tasks)
        bar = candidate.mean(tasks, "degraded") + limits.floors.mean_gain
        why = f"degraded + {limits.floors.mean_gain:g} dB"
        yield Row("psnr/mean", candidate.mean(tasks), None, bar, True, why)


def _psnr_of_each(new: dict[str, Score], old: dict[str, Score], limits: Promote) -> Iterator[Row]:
    for name, score in new.items():
        if name in old:
            beside = old[name].restored["psnr"]
            bar, why = beside - limits.psnr_loss, f"champion - {limits.psnr_loss:g} dB"
        else:
            beside, bar, why = (
                None,
                score.degraded["psnr"] + limits.floors.gain,
                f"degraded + {limits.floors.gain:g} dB",
            )
        yield Row(f"psnr/{name}", score.restored["psnr"], beside, bar, True, why)


def _understanding_rows(candidate: Scorecard, champion: Scorecard | None, limits: Promote) -> Iterator[Row]:
    common = shared_tasks(candidate, champion)
    before = champion if common else None
    tasks, floors = common or list(candidate.tasks), limits.floors
    rows = [("instructions", candidate.understood, before.understood if before else None, floors.instructions)]
    for name, share, floor in (("seen", Scorecard.seen, floors.seen), ("clean", Scorecard.clean_seen, floors.clean)):
        rows.append((name, share(candidate, tasks), share(before, tasks) if before else None, floor))
    if common:
        new = [task for task in candidate.tasks if task not in common]
        rows += [(f"seen/{task}", candidate.seen([task]), None, floors.seen) for task in new]
    for name, value, beside, floor in rows:
        if beside is None:
            yield Row(name, value, None, floor, True, "floor")
        else:
            bar = beside - limits.accuracy_loss
            yield Row(name, value, beside, bar, True, f"champion - {limits.accuracy_loss:g}")


def _harm_rows(candidate: Scorecard, champion: Scorecard | None, limits: Promote) -> Iterator[Row]:
    """What the model left to itself does to clean tiles (grey levels) and to damaged ones (dB gained)."""
    before = champion.harm["blind"] if champion else {}
    for name, value in candidate.harm["blind"].items():
        at_least = name != "clean"
        bar = -limits.damage_loss if at_least else limits.clean_change
        why = "dB gained, left to itself" if at_least else "grey levels changed, left to itself"
        yield Row(f"harm/{name}", value, before.get(name), bar, at_least, why)


def _cost_rows(candidate: Scorecard, champion: Scorecard | None, limits: Promote) -> Iterator[Row]:
    for name in ("megabytes", "seconds_per_megapixel"):
        bar, why, beside = getattr(limits, name), "limit", None
        if champion:
            beside = getattr(champion, name)
            if beside * limits.growth < bar:
                bar, why = beside * limits.growth, f"champion x {limits.growth:g}"
        yield Row(name, getattr(candidate, name), beside, bar, False, why)


def shared_tasks(candidate: Scorecard, champion: Scorecard | None) -> list[str]:
    """The tasks that both were measured on, in the candidate's order."""
    return [task for task in candidate.tasks if champion and task in champion.tasks]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
