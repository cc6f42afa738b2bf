"""Where the stages put what others read, from the top of the repository; dvc.yaml names the same places."""

from __future__ import annotations

from pathlib import Path

CLEAN = Path("data/clean")
SHARDS = Path("data/shards")
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
