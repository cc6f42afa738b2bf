"""Where the stages put what others read, from the top of the repository; dvc.yaml names the same places."""

from __future__ import annotations

from pathlib import Path

CLEAN = Path("data/clean")
SHARDS = Path("data/shards")
MANIFEST = "manifest.jsonl"  # in data/clean or data/shards/TASK: the files are in the shared storage
TRAINED = Path("models/trained")
COMPRESSED = Path("models/compressed")
UNDERSTANDING = Path("models/understanding")
METRICS = Path("metrics")
PLOTS = Path("plots")
CHOICE = METRICS / "modulation.json"
SENSITIVITY, HEAT_MAP, SPECTRUM = PLOTS / "sensitivity.csv", PLOTS / "sensitivity.png", PLOTS / "spectrum.csv"
LOSS_PLOT, VALIDATION_PLOT = PLOTS / "loss.csv", PLOTS / "validation.csv"
PICTURES = PLOTS / "restored"
DIFFUSION, SAMPLES = Path("models/diffusion"), PLOTS / "diffusion"
