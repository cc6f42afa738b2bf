"""From shards to batches to steps, in one process or in Ray Train workers."""
