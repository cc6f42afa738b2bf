"""Stage: PSNR and SSIM of degraded input, trained and compressed model, on held-out tiles and real pairs;
what the compressed model sees by itself, and what it does to pictures that need nothing.

RGB in [0, 1], full image, no border crop, 8-bit rounded, mean over images.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ipt.files import replace_file
from ipt.model import InstructIPT
from ipt.network.checkpoint import load_checkpoint
from ipt.network.task_network import TaskNetwork
from ipt.pixels import to_levels
from ipt.restoring.restore import restore_image
from pipelines.cluster.spread import several_nodes, spread
from pipelines.cluster.storage import Storage
from pipelines.common.files import write_json
from pipelines.common.params import RealPairs, load_params
from pipelines.common.paths import COMPRESSED, METRICS, PICTURES, SHARDS, TRAINED
from pipelines.common.processes import Each
from pipelines.common.stage import run
from pipelines.data.metrics import psnr
from pipelines.data.pairs import Pairs, load_validation
from pipelines.data.png import encode_png
from pipelines.scoring.real_pairs import present, read_real_pairs
from pipelines.scoring.scores import score_harm, score_pairs, score_sight
from pipelines.scoring.speed import seconds_per_megapixel

SCORES, HEADLINE = METRICS / "evaluate.json", METRICS / "headline.json"


def evaluate(models: dict[str, TaskNetwork], pairs: Pairs, each: Each = map) -> dict[str, dict]:
    """Scores by task and `overall` (mean over tasks): images, and by output (`degraded`, each model) psnr and ssim.

    `each` (a map) is where images are restored.
    """
    scores = {task: score_pairs(models, task, of_task, each) for task, of_task in pairs.items()}
    outputs = ["degraded", *models]
    scores["overall"] = {
        "images": sum(score["images"] for score in scores.values()),
        **{
            output: {
                name: round(float(np.mean([scores[task][output][name] for task in pairs])), 4)
                for name in ("psnr", "ssim")
            }
            for output in outputs
        },
    }
    return scores


def headline(scores: dict[str, dict], real: dict[str, dict], file_bytes: int, seconds: float) -> dict:
    """What `dvc metrics` and `dvc exp show` tell of the compressed model.

    Of each of the tasks, their mean (`overall`) and the real pairs PSNR (dB) before and after and what was gained; the
    checkpoint's bytes; seconds per megapixel on the machine that measured.
    """

    def brief(score: dict) -> dict[str, float]:
        degraded, restored = score["degraded"]["psnr"], score["compressed"]["psnr"]
        return {"degraded": degraded, "restored": restored, "gain": round(restored - degraded, 3)}

    return {
        "tasks": {name: brief(score) for name, score in scores.items()},
        "real_pairs": {name: brief(score) for name, score in real.items()},
        "bytes": file_bytes,
        "seconds_per_megapixel": round(seconds, 3),
    }


def draw_comparison(degraded: np.ndarray, restored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Degraded, restored and clean image side by side with captions, uint8 (H + 20, 3 W + 8, 3)."""
    gap = np.ones((degraded.shape[0], 4, 3), np.float32)
    row = np.concatenate([degraded, gap, restored, gap, clean], axis=1)
    sheet = to_levels(np.concatenate([np.ones((20, row.shape[1], 3), np.float32), row]))  # OpenCV writes on uint8 only
    captions = (
        f"degraded {psnr(degraded, clean):.1f} dB",
        f"restored {psnr(restored, clean):.1f} dB",
        "clean",
    )
    for number, caption in enumerate(captions):
        place = (number * (degraded.shape[1] + 4) + 2, 14)
        cv2.putText(sheet, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def write_pictures(model: InstructIPT, pairs: Pairs, folder: Path) -> None:
    """One before/after picture per task, in `folder`/TASK.png: of the half of the pairs with the most contrast (flat
    ones show nothing), the one whose damage is the median."""
    for task, of_task in pairs.items():
        by_contrast = sorted(of_task, key=lambda pair: pair[1].std())
        by_damage = sorted(by_contrast[len(by_contrast) // 2 :], key=lambda pair: psnr(*pair))
        degraded, clean = by_damage[len(by_damage) // 2]
        sheet = draw_comparison(degraded, restore_image(model, degraded, task=task), clean)
        with replace_file(folder / f"{task}.png") as temporary:
            temporary.write_bytes(encode_png(sheet))


def score_real_pairs(
    real_pairs: Iterable[RealPairs], models: dict[str, TaskNetwork], model: InstructIPT, seed: int, each: Each = map
) -> dict:
    """Scores by name, and what `model` sees there; a folder that is absent is said so and left out. `each` as above."""
    scores = {}
    for pairs in present(real_pairs, "evaluate"):
        scores[pairs.name] = {"task": pairs.task} | score_pairs(models, pairs.task, read_real_pairs(pairs, seed), each)
        scores[pairs.name]["seen"] = score_sight(model, pairs.task, read_real_pairs(pairs, seed))
    return scores


def print_table(scores: dict[str, dict]) -> None:
    """One line a row: images, and PSNR / SSIM of each output."""
    for name, score in scores.items():
        cells = [
            f"{output} {value['psnr']:5.2f} / {value['ssim']:.3f}"
            for output, value in score.items()
            if isinstance(value, dict) and "psnr" in value
        ]
        print(f"evaluate: {name:14s} {score['images']:4d} images  {'  '.join(cells)}", flush=True)


def print_sight_and_harm(scores: dict[str, dict], harm: dict[str, dict[str, float]]) -> None:
    """What is seen in the images, and the table of what each task does to clean images and to each damage."""
    for name, seen in ((name, score["seen"]) for name, score in scores.items() if "seen" in score):
        print(
            f"evaluate: {name:14s} damage seen in {seen['degraded']:.0%}, clean seen in {seen['clean']:.0%}", flush=True
        )
    for task, row in harm.items():
        gains = "  ".join(f"{name} {gain:+.2f} dB" for name, gain in row.items() if name != "clean")
        print(f"evaluate: {task:14s} changes clean images by {row['clean']:.2f} grey levels; on {gains}", flush=True)


def main() -> None:
    """Read params.yaml, measure both models and write scores and pictures."""
    params = load_params()
    model = InstructIPT.from_pretrained(COMPRESSED)
    models = {"trained": load_checkpoint(TaskNetwork, TRAINED), "compressed": model}
    storage = Storage(params.ray.storage)
    places = {task: storage.here(SHARDS / task) for task in params.tasks}
    pairs = load_validation(SHARDS, params.tasks, params.evaluate.tiles, places)
    with several_nodes(params.ray) as nodes:
        each: Each = spread if nodes else map
        scores = evaluate(models, pairs, each)
        real = score_real_pairs(params.evaluate.real_pairs, models, model, params.seed, each)
        harm = score_harm(model, pairs, each)
    for task, of_task in pairs.items():
        scores[task]["seen"] = score_sight(model, task, of_task)
    write_json(SCORES, {"tasks": scores, "real_pairs": real, "harm": harm})
    file_bytes = sum(path.stat().st_size for path in COMPRESSED.iterdir())
    seconds = seconds_per_megapixel({"compressed": model})["compressed"]
    write_json(HEADLINE, headline(scores, real, file_bytes, seconds))
    write_pictures(model, pairs, PICTURES)
    print_table(scores | real)
    print_sight_and_harm(scores | real, harm)
    print(f"evaluate: scores in {SCORES}, their headline in {HEADLINE} (dvc metrics show), pictures in {PICTURES}")


if __name__ == "__main__":
    run(main, __doc__)
