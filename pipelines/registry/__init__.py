"""The registered model: made, described, fetched, and loaded by MLflow."""
