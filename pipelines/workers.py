"""What stages that train ask of Ray Train: resources for each worker, and where a run stands."""

from __future__ import annotations

import json
from pathlib import Path

import ray.train

from pipelines.cluster import cpus_per_worker
from pipelines.params import Ray


def resources(settings: Ray) -> ray.train.ScalingConfig:
    """What each worker gets; `auto` is one GPU each on a cluster that has any."""
    gpus = settings.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
    per_worker = {"CPU": cpus_per_worker(settings)} | ({"GPU": gpus} if gpus else {})
    return ray.train.ScalingConfig(num_workers=settings.workers, use_gpu=gpus > 0, resources_per_worker=per_worker)


def position(run: Path) -> int:
    """The step of a run's last checkpoint, 0 where it has none."""
    path = run / "position.json"
    return json.loads(path.read_text())["step"] if path.is_file() else 0
