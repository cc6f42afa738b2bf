"""MLflow's store, and the run that follows a training."""
