"""The model card: what a registered version is, what it learnt from, how it scores and where it fails."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ruamel.yaml import YAML

from ipt.network.config import ModelConfig
from pipelines.common.params import Params, Source
from pipelines.scoring.scorecard import Score, Scorecard

CARD = "MODEL_CARD.md"
LONGEST = 5000  # characters of a version's description that every database behind MLflow takes
MEASURED = "\n## Measured\n"  # from here on the card is written anew where the version is measured anew
TASK_TYPE = "image-to-image"  # as hubs call it
LITTLE = 0.5  # dB; a task that gains less is named among the failures
OFTEN = 0.9  # share of images; what is seen more rarely is named
CHANGE = 5.0  # grey levels by which a named task may change clean tiles before that is named
HARM = -1.0  # dB; a named task that costs more on another's damage is named


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from."""

    commit: str
    day: str  # year-month-day
    machine: str


def model_card(name: str, config: ModelConfig, params: Params, data: str, card: Scorecard, origin: Provenance) -> str:
    """The whole card in Markdown; `data` is the hash of the data that the model learnt from."""
    tasks = ", ".join(config.tasks)
    return (
        f"# {name}\n\n"
        f"Restores photographs: {tasks}; which of them a sentence, a task's name or the picture itself says. One "
        f"transformer (preset {params.model.preset}) with a bias of rank {config.rank} for each task, after "
        "Instruct-IPT (arXiv 2407.00676). RGB pictures of any size.\n\n"
        "## Data and licences\n\n"
        + "".join(f"- {_source(source, params.register.licences)}\n" for source in params.prepare.sources)
        + "- What words mean: vectors of GloVe (glove.6B.50d, public domain: PDDL 1.0), which come with the code.\n"
        + f"\nDamage is synthetic, by the recipes of params.yaml. Hash of the data: `{data}`. Code: "
        "Apache-2.0; weights: as far as the photographs' licences allow.\n\n"
        "## Protocol\n\n"
        "PSNR (dB) and SSIM on RGB, full image, no border crop, rounded to 8 bits, mean over images. Tasks: held-out "
        "tiles of pictures never seen in training, the task named. Real pairs: never trained on.\n"
        + measured(card, origin)
    )


def front_matter(name: str, tasks: Sequence[str], scores: Mapping[str, Mapping[str, float]]) -> str:
    """What hubs read of a card: YAML before its Markdown, with the `psnr` and `ssim` of each of `scores`."""
    results = [
        {
            "task": {"type": TASK_TYPE},
            "dataset": {"name": of, "type": of},
            "metrics": [{"type": measure, "value": score[measure]} for measure in ("psnr", "ssim")],
        }
        for of, score in scores.items()
    ]
    facts = {
        "license": "other",
        "license_name": "as-the-photographs",
        "license_link": "README.md",
        "library_name": "instruct-ipt",
        "pipeline_tag": TASK_TYPE,
        "tags": ["image-restoration", *tasks],
        "metrics": ["psnr", "ssim"],
        "model-index": [{"name": name, "results": results}],
    }
    text = io.StringIO()
    YAML(typ="safe").dump(facts, text)
    return f"---\n{text.getvalue()}---\n\n"


def measured_anew(text: str, card: Scorecard, origin: Provenance) -> str:
    """A card with the part that is measured written anew; the rest stays to the letter."""
    return text.partition(MEASURED)[0] + measured(card, origin)


def as_description(text: str) -> str:
    """A card as a version's description: shortened where it is longer than databases take."""
    ending = f"\n... (whole in {CARD} among the run's artifacts)"
    return text if len(text) <= LONGEST else text[: LONGEST - len(ending)] + ending


def measured(card: Scorecard, origin: Provenance) -> str:
    """The part of the card that is measured: numbers, size, speed and known failures."""
    return "\n".join(
        [
            MEASURED,
            f"{origin.day}, commit {origin.commit}, {origin.machine}.",
            "",
            "| | images | degraded | restored | damage seen | clean seen as clean |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_row(name, score) for name, score in _scores(card)),
            "",
            f"Instructions understood: {card.understood:.1%} (of all held-out sentences). Checkpoint: "
            f"{card.megabytes:.2f} MB. Speed: {card.seconds_per_megapixel:.2f} s per megapixel and task.",
            "",
            "## Known failures",
            "",
            *(f"- {failure}" for failure in known_failures(card)),
            "",
        ]
    )


def known_failures(card: Scorecard) -> list[str]:
    """What the numbers say that the model does badly, and what no number says."""
    told = []
    for name, score in _scores(card):
        gain = score.restored["psnr"] - score.degraded["psnr"]
        if not gain >= LITTLE:
            told.append(f"{name}: {gain:+.2f} dB only.")
        for share, what in ((score.damage_seen, "the damage"), (score.clean_seen, "that clean images are clean")):
            if share == 0:
                told.append(f"{name}: left to itself it never sees {what}.")
            elif not share >= OFTEN:
                told.append(f"{name}: left to itself it sees {what} in {share:.0%} only.")
    for task, row in card.harm.items():
        if task == "blind":
            continue
        if row["clean"] > CHANGE:
            told.append(f"{task}, named where there is nothing to do: clean tiles change by {row['clean']:.1f} levels.")
        worse = [
            f"{other} {gain:+.1f} dB" for other, gain in row.items() if other not in ("clean", task) if gain < HARM
        ]
        if worse:
            told.append(f"{task}, named for another's damage: {', '.join(worse)}.")
    return [*told, "Damage unlike the recipes, and animations, raw files or faces to be invented: not learnt."]


def _scores(card: Scorecard) -> list[tuple[str, Score]]:
    return [*card.tasks.items(), *card.real_pairs.items()]


def _row(name: str, score: Score) -> str:
    values = [f"{value['psnr']:.2f} / {value['ssim']:.3f}" for value in (score.degraded, score.restored)]
    seen = [f"{share:.0%}" for share in (score.damage_seen, score.clean_seen)]
    return f"| {' | '.join([name, str(score.images), *values, *seen])} |"


def _source(source: Source, licences: str | None) -> str:
    if source.folder:
        if licences:
            return f"Photographs: {' '.join(licences.split()).removesuffix('.')}."
        return f"Photographs in `{source.folder.path}`; their licences are their owner's to state."
    if leaves := source.dead_leaves:
        return f"{leaves.images} procedural dead-leaves pictures of {leaves.size} pixels; nobody's."
    return (
        "Photographs bundled with scikit-image (their licences: its data/README) and scikit-learn (CC BY 2.0, "
        "danielbuechele and vultilion)."
    )
