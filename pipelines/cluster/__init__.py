"""Ray: connecting, storage that all nodes share, workers, checkpoints, progress."""
