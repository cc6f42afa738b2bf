"""Training of backbone and task biases at the same time."""
