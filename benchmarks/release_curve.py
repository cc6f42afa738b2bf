"""`make release-curve DATA=FOLDER`: how far the release's training is, into docs/release_curve.csv and .png.

Loss by training hours from the history in its last checkpoint, and a new row: the averaged weights of that checkpoint
on real pairs (FOLDER holds them as data/real_pairs does; of large sets every few), without the decay
that a finished model has had. Called again after hours, the curve grows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import pandas as pd

from benchmarks.peers import some_real_pairs
from ipt.network.config import preset_config
from ipt.network.task_network import TaskNetwork
from ipt.restoring.restore import restorer
from ipt.weights import load_weights
from pipelines.cluster.progress import History
from pipelines.common.params import load_params
from pipelines.common.paths import CHOICE
from pipelines.common.plain_yaml import read_plain
from pipelines.common.processes import usable_cores
from pipelines.data.metrics import psnr
from pipelines.training.choice import read_choice

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TABLE, PICTURE = Path("docs/release_curve.csv"), Path("docs/release_curve.png")
MOST = 20  # pictures of each set


def last_checkpoint(release: Path) -> Path:
    """The newest checkpoint of the training in a release's folder. Raises FileNotFoundError where there is none."""
    notes = sorted(release.glob("runs/train-*/latest.json"), key=lambda path: path.stat().st_mtime)
    if not notes:
        raise FileNotFoundError(f"{release}/runs: no training with a checkpoint; `make release` begins one")
    return notes[-1].parent / json.loads(notes[-1].read_text())["folder"]


def hours_by_step(history: History) -> pd.DataFrame:
    """Columns step, hours and loss: the time that the steps so far took."""
    steps = pd.DataFrame(history.steps)
    seconds = (steps["step"].diff().fillna(steps["step"]) * steps["step_seconds"]).cumsum()
    return pd.DataFrame({"step": steps["step"], "hours": seconds / 3600, "loss": steps["loss"]})


def gains(network: TaskNetwork, data: Path) -> dict[str, float]:
    """Mean gain in PSNR (dB) on up to MOST of each of the real pairs of params.yaml, which lie in `data`."""
    found = {}
    for pairs, some in some_real_pairs(load_params(), data, MOST, "release-curve"):
        restore = restorer(network, [pairs.task])
        found[pairs.name] = sum(psnr(restore(d), c) - psnr(d, c) for d, c in some) / len(some)
    return found


def draw(curve: pd.DataFrame, rows: pd.DataFrame, cores: int) -> None:
    """Loss and gains by hours, one under the other."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    upper.plot(curve["hours"], curve["loss"].rolling(5, min_periods=1).mean())
    upper.set_ylabel("training loss")
    for name in rows.columns.drop(["step", "hours", "loss"]):
        lower.plot(rows["hours"], rows[name], marker="o", label=name)
    lower.set_ylabel("gain on real pairs, dB")
    lower.set_xlabel(f"hours of training ({cores} CPU cores, beside other work)")
    lower.legend()
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=100)


def main() -> None:
    """Measure the last checkpoint, add its row and draw the curve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.release_curve", description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="the release's folder")
    parser.add_argument("data", type=Path, help="real pairs: folders of the names that params.yaml has")
    arguments = parser.parse_args()
    folder = last_checkpoint(arguments.release)
    choice = read_choice(arguments.release / CHOICE)
    params = read_plain(arguments.release / "params.yaml")  # of the code that it was begun with
    config = preset_config(params["model"]["preset"], tuple(params["tasks"]), choice.rank, choice.layers)
    network = TaskNetwork(config)
    load_weights(network, folder / "ema.safetensors")
    curve = hours_by_step(History.read(folder))
    row = curve.iloc[-1].to_dict() | gains(network.eval(), arguments.data)
    rows = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame()
    rows = pd.concat([rows, pd.DataFrame([row])]).drop_duplicates("step", keep="last").round(4)
    rows.to_csv(TABLE, index=False)
    draw(curve, rows, usable_cores())
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
