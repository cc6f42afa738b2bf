"""Stage: the compressed model with all that is known of it into the MLflow registry, under the alias of params.yaml."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from ipt.model import InstructIPT
from pipelines.cluster.storage import Storage
from pipelines.common.files import write_json
from pipelines.common.lock import data_hashes
from pipelines.common.params import PARAMS_FILE, Params, load_params
from pipelines.common.paths import (
    CHOICE,
    COMPRESSED,
    HEAT_MAP,
    LOSS_PLOT,
    METRICS,
    PICTURES,
    SENSITIVITY,
    SHARDS,
    SPECTRUM,
    TRAINED,
    VALIDATION_PLOT,
)
from pipelines.common.stage import run
from pipelines.data.pairs import load_pairs
from pipelines.data.png import encode_png
from pipelines.registry.card import Provenance, model_card
from pipelines.registry.registration import Data, Measured, Registration, register_model, signature
from pipelines.scoring.scorecard import of_reports
from pipelines.scoring.speed import machine, seconds_per_megapixel
from pipelines.tracking.store import git_commit

RESULT = METRICS / "register.json"
REAL_PAIRS = "data/real_pairs"
# Of the run: everything the other stages wrote that a person would look for.
REPORTS = (
    PARAMS_FILE,
    *(METRICS / f"{stage}.json" for stage in ("prepare", "understand", "analyze", "train", "compress", "evaluate")),
    METRICS / "headline.json",
    CHOICE,
    SENSITIVITY,
    HEAT_MAP,
    SPECTRUM,
    LOSS_PLOT,
    VALIDATION_PLOT,
    PICTURES,
)
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "psutil",
    "safetensors",
    "torch",
)


def register(params: Params, hashes: dict[str, str], inputs: dict[str, str]) -> dict:
    """Complete the training's MLflow run and register models/compressed as a new version; returns where it is.

    `hashes` are DVC's of the data folders that stages made, by path, `inputs` of those that they read.
    """
    run = json.loads((TRAINED / "run.json").read_text())
    scores = json.loads((METRICS / "evaluate.json").read_text())
    compression = json.loads((METRICS / "compress.json").read_text())
    registration = Registration(
        run_name=run["name"],
        run_id=run["mlflow_run"],
        params=params,
        rows=[
            *_rows(LOSS_PLOT),
            *({"step": row["step"], f"val_psnr/{row['task']}": row["psnr"]} for row in _rows(VALIDATION_PLOT)),
        ],
        learnt_from=list(shards_of(params, hashes).values()),
        summary=summary(scores, compression, datasets(params, hashes, inputs)),
        reports=list(REPORTS),
        checkpoint=COMPRESSED,
        code=Path(__file__).parent / "registry" / "pyfunc.py",
        requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        example=input_example(params),
        card=card(params, scores, compression, hashes),
        tags=tags(scores, hashes),
        model=params.register.model,
        signature=signature(),
        again="`dvc repro register`",
    )
    return register_model(registration)


def _rows(path: Path) -> list[dict]:
    return [
        {name: value for name, value in row.items() if pd.notna(value)} for row in pd.read_csv(path).to_dict("records")
    ]


def shards_of(params: Params, hashes: dict[str, str]) -> dict[str, Data]:
    """The shards of each task, as far as DVC has locked them."""
    folders = {task: str(SHARDS / task) for task in params.tasks}
    return {
        task: Data(f"shards/{task}", folder, hashes[folder]) for task, folder in folders.items() if folder in hashes
    }


def datasets(params: Params, hashes: dict[str, str], inputs: dict[str, str]) -> dict[str, Data]:
    """What was measured on, by task and name of real pairs; DVC has one hash of all real pairs."""
    return shards_of(params, hashes) | {
        pairs.name: Data(f"real_pairs/{pairs.name}", pairs.path, inputs[REAL_PAIRS])
        for pairs in params.evaluate.real_pairs
        if REAL_PAIRS in inputs
    }


def summary(scores: dict, compression: dict, data: dict[str, Data]) -> list[Measured]:
    """Final numbers as MLflow metrics: psnr/TASK/OUTPUT, ssim/TASK/OUTPUT, each with its data, and sizes."""
    of_each = [
        Measured(
            {
                f"{measure}/{name}/{output}": score[output][measure]
                for output in ("degraded", "trained", "compressed")
                for measure in ("psnr", "ssim")
            },
            data.get(name),
        )
        for name, score in (scores["tasks"] | scores["real_pairs"]).items()
    ]
    sizes = {name: compression[name] for name in ("bias_bytes_before", "bias_bytes", "file_bytes")}
    return [*of_each, Measured(sizes)]


def tags(scores: dict, hashes: dict[str, str]) -> dict[str, str]:
    """Git commit, PSNR of each task, DVC's hash of each data folder and one hash of them all."""
    psnr = {f"psnr.{task}": str(score["compressed"]["psnr"]) for task, score in scores["tasks"].items()}
    by_folder = {f"data_hash.{path.removeprefix('data/').replace('/', '.')}": md5 for path, md5 in hashes.items()}
    return {"git_commit": git_commit(), "data_hash": data_hash(hashes)} | psnr | by_folder


def card(params: Params, scores: dict, compression: dict, hashes: dict[str, str]) -> str:
    """The model card, with the speed measured here."""
    model = InstructIPT.from_pretrained(COMPRESSED)
    speed = seconds_per_megapixel({"compressed": model})["compressed"]
    instructions = json.loads((METRICS / "understand.json").read_text())["instructions"]
    scorecard = of_reports(scores, instructions, compression["file_bytes"], speed)
    origin = Provenance(git_commit(), date.today().isoformat(), machine())
    return model_card(params.register.model, model.config, params, data_hash(hashes), scorecard, origin)


def data_hash(hashes: dict[str, str]) -> str:
    """One hash of all data folders' hashes."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:12]


def input_example(params: Params) -> pd.DataFrame:
    """A held-out degraded tile with its task, and the same with an instruction, less strongly."""
    task = next(iter(params.tasks))
    place = Storage(params.ray.storage).here(SHARDS / task)
    degraded, _ = load_pairs(SHARDS / task / "val", 1, place)[0]
    return pd.DataFrame(
        {
            "image": [encode_png(degraded)] * 2,
            "task": [task, None],
            "instruction": [None, params.tasks[task].instructions[0]],
            "strength": [None, 0.8],
        }
    )


def main() -> None:
    """Register what the stages before have made."""
    result = register(load_params(), data_hashes(), data_hashes(of="deps"))
    write_json(RESULT, result)
    print(
        f"register: {result['model']} version {result['version']}, alias {result['alias']}, in {result['tracking']} "
        f"(look: make ui)"
    )


if __name__ == "__main__":
    run(main, __doc__)
