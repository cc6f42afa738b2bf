"""The network that is trained: backbone, task biases, and the folder that a trained one is kept in."""
