"""PSNR of a model on the held-out tiles of each task, for the validation curve and for the evaluate stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from ipt.metrics import psnr
from ipt.model import InstructIPT
from pipelines.schema import decode_image, parquet_files

Pairs = dict[str, list[tuple[np.ndarray, np.ndarray]]]  # task -> (degraded, clean) images


def load_validation(shards: Path, tasks: tuple[str, ...], count: int) -> Pairs:
    """`count` held-out pairs of each task (all, where there are fewer), spread evenly over its shards."""
    pairs: Pairs = {}
    for task in tasks:
        tables = [pq.read_table(path, columns=["degraded", "clean"]) for path in parquet_files(shards / task / "val")]
        rows = [row for table in tables for row in table.to_pylist()]
        chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
        pairs[task] = [(decode_image(rows[i]["degraded"]), decode_image(rows[i]["clean"])) for i in chosen]
    return pairs


def validate(model: InstructIPT, pairs: Pairs) -> dict[str, float]:
    """Mean PSNR in dB of the restored images of each task, in the model's present weights."""
    return {
        task: float(
            np.mean(
                [
                    psnr(restored, clean)
                    for restored, (_, clean) in zip(restore_pairs(model, task, of_task), of_task, strict=True)
                ]
            )
        )
        for task, of_task in pairs.items()
    }


@torch.inference_mode()
def restore_pairs(model: InstructIPT, task: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The restored image of each pair."""
    device = next(model.parameters()).device
    index = torch.tensor([model.task_index(task)], device=device)
    restored = []
    for degraded, _ in pairs:
        batch = torch.from_numpy(degraded).permute(2, 0, 1)[None].contiguous().to(device)
        restored.append(model(batch, index)[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy())
    return restored
