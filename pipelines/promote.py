"""A registered version to champion, where it is nowhere worse than today's; and the way back.

    python -m pipelines.promote [--version N] [--dry-run]     the candidate, or version N
    python -m pipelines.promote --rollback [--dry-run]        champion and previous change places
    python -m pipelines.promote --to-registry URI [--version N]   the champion, or version N, to another server

Candidate and champion are measured now, by the same code, on the same held-out tiles and real pairs. The exit status is
1 where the candidate is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

from ipt.model import InstructIPT
from pipelines.common.params import PREVIOUS, Params, load_params
from pipelines.common.stage import run
from pipelines.promotion.gate import Row, failures, judge, table
from pipelines.promotion.measure import measure
from pipelines.registry.card import CARD, Provenance, as_description, measured_anew
from pipelines.registry.fetch import fetch_checkpoint
from pipelines.registry.versions import Registered, copy_version, registered
from pipelines.scoring.scorecard import Scorecard
from pipelines.scoring.speed import machine
from pipelines.tracking.store import git_commit

COMMAND = "python -m pipelines.promote"
REPORT = "promotion"  # folder of artifacts, and first part of the tags' names


def promote(params: Params, number: int | None, dry_run: bool) -> bool:
    """Measure, print and record the table, and move the aliases; False where the candidate is refused."""
    with _registered(params) as there:
        if not dry_run:
            there.settle()
        aliases = there.aliases()
        candidate = _candidate(there, aliases, number, params.register.alias)
    champion = aliases.get(params.promote.alias)
    if candidate == champion:
        print(f"promote: version {candidate} is the champion already; nothing to do")
        return True
    scorecards, lost = measure_versions(params, candidate, champion)
    rows = judge(scorecards["candidate"], scorecards.get("champion"), lost, params.promote)
    failed = failures(rows)
    beside = f"version {champion}, the champion" if champion else "the floors, as there is no champion"
    title = f"{params.register.model}: version {candidate} beside {beside}"
    print(f"{title}\n\n{table(rows)}\n")
    if dry_run:
        print(
            f"promote: {_refusal(candidate, failed) if failed else f'version {candidate} would be champion'} (dry run)"
        )
        return not failed
    with _registered(params) as there:
        record(there, candidate, champion, title, rows, scorecards["candidate"])
        if failed:
            print(f"promote: {_refusal(candidate, failed)}", file=sys.stderr)
            return False
        check_registered(params, candidate)  # again: measuring took its time
        there.move(champion, candidate)
    was = f", version {champion} is {PREVIOUS} (back: {COMMAND} --rollback)" if champion else ""
    print(f"promote: version {candidate} is {params.promote.alias}{was}")
    return True


def roll_back(params: Params, dry_run: bool) -> None:
    """The previous champion to champion and the other way round; the same again undoes it.

    Raises CheckpointError where the previous one's files are not those that were registered.
    """
    with _registered(params) as there:
        if not dry_run:
            there.settle()
        aliases = there.aliases()
        champion, previous = aliases.get(params.promote.alias), aliases.get(PREVIOUS)
        if champion is None or previous is None:
            missing = PREVIOUS if previous is None else params.promote.alias
            raise ValueError(f"{there.model}: no version has the alias {missing}, so there is no way back")
        check_registered(params, previous)
        if dry_run:
            print(
                f"promote: version {previous} would be {params.promote.alias}, version {champion} {PREVIOUS} (dry run)"
            )
            return
        there.move(champion, previous)
    print(f"promote: version {previous} is {params.promote.alias} again, version {champion} is {PREVIOUS}")


def copy(params: Params, number: int | None, uri: str) -> None:
    """A version (by default the champion) to another tracking server, as its candidate."""
    with _registered(params) as there:
        number = _candidate(there, there.aliases(), number, params.promote.alias)
        made, copied = copy_version(there, number, uri, params.register.experiment, params.register.alias)
    what = "is" if copied else "was there already as"
    print(
        f"promote: version {number} {what} version {made} of {params.register.model} in {uri}, "
        f"alias {params.register.alias}; there: MLFLOW_TRACKING_URI={uri} {COMMAND}"
    )


def measure_versions(params: Params, candidate: int, champion: int | None) -> tuple[dict[str, Scorecard], list[str]]:
    """The scorecards of `candidate` and, if there is one, `champion`, and the tasks that only the champion has.

    Raises CheckpointError for a candidate whose files are not those that were registered, ValueError for a champion
    that cannot be loaded: without it nothing says whether the candidate is worse.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"candidate": fetch(params, candidate, Path(temporary))}
        models = {"candidate": InstructIPT.from_pretrained(folders["candidate"])}
        if champion is not None:
            try:
                folders["champion"] = fetch(params, champion, Path(temporary))
                models["champion"] = InstructIPT.from_pretrained(folders["champion"])
            except (ValueError, RuntimeError, OSError) as error:
                raise ValueError(
                    f"the champion, version {champion}, cannot be loaded, so nothing says whether version {candidate} "
                    f"is worse, and nothing moved ({error}); back to {PREVIOUS}: `{COMMAND} --rollback`, or see "
                    "docs/registry.md"
                ) from error
        known = models["candidate"].config.tasks
        lost = [task for task in models.get("champion", models["candidate"]).config.tasks if task not in known]
        return measure(models, folders, params), lost


def fetch(params: Params, number: int, folder: Path) -> Path:
    """A copy of a version's checkpoint below `folder`."""
    target = folder / str(number)
    target.mkdir()
    return fetch_checkpoint(f"models:/{params.register.model}/{number}", target)


def check_registered(params: Params, number: int) -> None:
    """Raise CheckpointError where the files of a version are not those that were registered, now."""
    with tempfile.TemporaryDirectory() as temporary:
        fetch(params, number, Path(temporary))


def record(
    there: Registered, candidate: int, champion: int | None, title: str, rows: list[Row], scorecard: Scorecard
) -> None:
    """The table among the artifacts of the version's run, its rows as tags, the model card with the new numbers."""
    failed = failures(rows)
    origin = Provenance(git_commit(), date.today().isoformat(), machine())
    card = measured_anew(there.text(candidate, CARD), scorecard, origin)
    report = {
        "candidate": candidate,
        "champion": champion,
        "failed": failed,
        "measured": dataclasses.asdict(origin),
        "rows": [dataclasses.asdict(row) | {"passed": row.passed} for row in rows],
    }
    folder = f"{REPORT}/version_{candidate}"  # versions of one training share its run
    texts = {
        f"{folder}/table.md": f"# {title}\n\n{table(rows)}\n",
        f"{folder}/table.json": json.dumps(report, indent=2) + "\n",
        CARD: card,
    }
    tags = {REPORT: "refused: " + ", ".join(failed) if failed else "passed"}
    tags[f"{REPORT}.beside"] = f"version {champion}" if champion else "floors"
    for row in rows:
        name, beside, value, bar, verdict = row.cells()
        tags[f"{REPORT}.{name}"] = f"{verdict}: {value}, bar {bar}, champion {beside}"
    there.record(candidate, texts, tags, as_description(card))


def _candidate(there: Registered, aliases: dict[str, int], number: int | None, alias: str) -> int:
    """The version meant: by its number or by an alias."""
    if number is not None:
        return int(there.version(number).version)
    if alias not in aliases:
        raise ValueError(f"{there.model}: no version has the alias {alias}; name one with --version N")
    return aliases[alias]


def _registered(params: Params) -> contextlib.AbstractContextManager[Registered]:
    return registered(params.register.model, params.promote.alias, f"`{COMMAND}` again")


def _refusal(candidate: int, failed: list[str]) -> str:
    return f"version {candidate} is refused: {', '.join(failed)}"


def main() -> None:
    """Read the command line and do what it says."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.rollback and arguments.version:
        parser.error("--rollback goes to the previous champion; it takes no --version")
    if arguments.to_registry and arguments.dry_run:
        parser.error("--to-registry moves no alias here and tells nothing in a dry run")
    params = load_params()
    if arguments.rollback:
        roll_back(params, arguments.dry_run)
    elif arguments.to_registry:
        copy(params, arguments.version, arguments.to_registry)
    elif not promote(params, arguments.version, arguments.dry_run):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--version", type=int, help="the version meant, instead of the candidate (or the champion)")
    parser.add_argument("--dry-run", action="store_true", help="measure and print; record and move nothing")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--rollback", action="store_true", help="champion and previous change places")
    one.add_argument("--to-registry", metavar="URI", help="copy the version to another tracking server")
    return parser


if __name__ == "__main__":
    run(main)
