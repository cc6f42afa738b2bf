"""What the reader of instructions and the estimator learn from."""
