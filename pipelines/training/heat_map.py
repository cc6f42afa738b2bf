"""The picture of the sensitivity analysis: layers by tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def draw_heat_map(tasks: tuple[str, ...], scores: dict[str, list[float]], path: Path) -> None:
    """Write a PNG of the PSNR that each layer's bias gains each task, dB; an empty frame where `scores` is empty."""
    from matplotlib.colors import SymLogNorm  # here: its import writes into the home folder
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 0.7 * len(tasks), 1.5 + 0.22 * len(scores)), layout="constrained")
    axes = figure.subplots()
    if scores:
        values = np.array(list(scores.values()))
        reach = max(float(np.abs(values).max()), 1e-9)
        picture = axes.imshow(values, aspect="auto", cmap="RdBu_r", norm=SymLogNorm(0.02, vmin=-reach, vmax=reach))
        figure.colorbar(picture, label="PSNR gained, dB")
    axes.set_xticks(range(len(tasks)), tasks, rotation=45)
    axes.set_yticks(range(len(scores)), list(scores), fontsize=7)
    figure.savefig(path, format="png", dpi=100)
