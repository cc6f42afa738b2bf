"""What is done with task biases: choosing layers and rank, compressing, moving one between models."""
