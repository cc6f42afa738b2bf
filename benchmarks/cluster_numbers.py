"""The measured numbers that the model of a cluster is made of, each with where it comes from.

That is docs/cluster.md, by the heading there, unless another place is named. Seconds are those of a core of its 2-core
AMD EPYC, bytes/s and bytes.
"""

from __future__ import annotations

import math

from pipelines.training.stream import TURN

# Work of a core. Where no table is named: of the CPU, 2026-11-26, the machine full of other work, the median of 12
# calls of `read_groups` and of 40 passes of `training_batches` over what `unpacked` gave
READ = 0.14 / 640  # a crop of 64 out of a tile of 128, one process without Ray: "Reading: speed and memory"
READ_PNG = 0.97e-3  # a pair of tiles: the same
READ_RELEASE = 0.2376 / 640  # a crop of 128 out of a tile of 160, of a release's shards
BESIDE = 1.3  # times as long reads a process beside others and through Ray: so that bench-ingest's raw levels come out
NUMBERS, NUMBERS_RELEASE = 0.097e-3 / 10, 3.385e-3 / 80  # a crop of 64, of 128: bytes to numbers
TURN_COST = 0.06 * TURN  # a turn of Ray's executor, of which it took 0.06: "Reading: speed and memory"
HAND_OUT, PUT = 4.5e-3, 8.5e-3  # a segment of `make bench-hand-out`: the executor, all other processes of Ray together
START, START_READER = 1.87, 1.23  # before readers start (no core), and of each: the line through its 3.1 and 6.8 s

# Steps on that machine: "Training: one worker and two", "Where a step's time goes"
BARE = {10: 0.0930, 40: 0.366}  # a bare loop, by samples
AT_ONCE = {10: 0.0977, 40: 0.410}  # each of two bare loops at once
AT_ONCE_BF16 = {5: 0.048, 10: 0.082}  # the same in the default run's precision
RAY_SHARE = 1 + 0.003 / 0.103  # what Ray's processes add to a step: 2 to 4 of 103 ms
JITTER = 0.005 * math.sqrt(math.pi) / 0.093  # two that meet wait 5 ms: the deviation over the root of pi
SHARES = tuple(part / 70.6 for part in (24.7 + 0.9, 41.0, 1.4 + 1.2 + 1.4))  # of a step: forward, backward, update
FIRST_BUCKET = 2.0**20  # bytes of DistributedDataParallel's first bucket; the second takes up to 25 times as many
GRADIENTS, GRADIENTS_SMALL = 4.3e6, 11.9e6  # bytes of `tiny`, of `small`
EXCHANGE_RATE = (GRADIENTS - FIRST_BUCKET) / 0.005  # bytes/s: what comes after the first bucket takes 5 ms

# Of a GPU ("8 and 64 GPUs") and its data
GPU = {"eager": 80 / 1221, "compiled": 80 / 2351}  # seconds of a step of 80 crops of 128 in one H200's memory
ROW = 86e3  # bytes of a pair of tiles of 128 in a shard: "Reading: speed and memory"
ROW_RELEASE = 136.4e3  # of 160: the mean of a release's shards
GROUP_ROWS, TASKS = 32, 5  # of a row group; of params.yaml
CROP = 2 * 3 * 64 * 64  # bytes of a pair
