"""All that is measured of one model, as the gate judges it and the model card shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """Images of a task, or real pairs: PSNR in dB and SSIM before and after, and how often what they show is seen."""

    task: str
    images: int
    degraded: dict[str, float]  # psnr, ssim
    restored: dict[str, float]
    damage_seen: float  # share of the degraded images that are taken for the task's
    clean_seen: float  # share of the clean ones that are taken for clean


@dataclass(frozen=True)
class Scorecard:
    """A model's scores."""

    tasks: dict[str, Score]  # held-out tiles
    real_pairs: dict[str, Score]
    understood: float  # share of all held-out instructions
    harm: dict[str, dict[str, float]]  # of pipelines.scoring.scores.score_harm
    megabytes: float  # of the checkpoint
    seconds_per_megapixel: float

    def mean(self, tasks: list[str], output: str = "restored") -> float:
        """Mean PSNR of `tasks` in dB."""
        return float(np.mean([getattr(self.tasks[task], output)["psnr"] for task in tasks]))

    def seen(self, tasks: list[str]) -> float:
        """Mean share of the damaged tiles of `tasks` whose damage is seen."""
        return float(np.mean([self.tasks[task].damage_seen for task in tasks]))

    def clean_seen(self, tasks: list[str]) -> float:
        """Mean share of the clean tiles of `tasks` that are taken for clean."""
        return float(np.mean([self.tasks[task].clean_seen for task in tasks]))


def to_score(task: str, score: dict, output: str) -> Score:
    """A score as metrics/evaluate.json has it; `output` names the model among those measured there."""
    return Score(
        task=task,
        images=score["images"],
        degraded=score["degraded"],
        restored=score[output],
        damage_seen=score["seen"]["degraded"],
        clean_seen=score["seen"]["clean"],
    )


def of_reports(evaluation: dict, instructions: dict, file_bytes: int, seconds_per_megapixel: float) -> Scorecard:
    """The compressed model's scores as metrics/evaluate.json and metrics/understand.json have them."""
    tasks, real = evaluation["tasks"], evaluation["real_pairs"]
    return Scorecard(
        tasks={task: to_score(task, score, "compressed") for task, score in tasks.items() if task != "overall"},
        real_pairs={name: to_score(score["task"], score, "compressed") for name, score in real.items()},
        understood=instructions["all"]["understood"],
        harm=evaluation["harm"],
        megabytes=file_bytes / 1e6,
        seconds_per_megapixel=seconds_per_megapixel,
    )
