"""Groups of encoded samples to mixed-task batches: decoded, cropped and turned in threads beside the training."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch

from ipt.training import Batch
from pipelines.crops import PairCrop
from pipelines.ingest import mixed_seed
from pipelines.schema import decode_levels
from pipelines.shards import damaged


def training_batches(
    groups: Iterable[pa.Table],
    index: Sequence[int],
    crop: int,
    seed: int,
    *,
    threads: int,
    prefetch: int,
) -> Iterator[Batch]:
    """Decode, crop, flip and turn each table of groups into a batch, in threads ahead of the consumer.

    The samples of a batch are sorted by task. What happens to a sample depends on (seed, its group, its place).
    """
    local = threading.local()

    def load(degraded: bytes, clean: bytes, origin: str, sample_seed: int) -> np.ndarray:
        if not hasattr(local, "pair_crop"):
            local.pair_crop = PairCrop(crop)
        try:
            pair = decode_levels(degraded), decode_levels(clean)
        except ValueError as error:
            raise damaged(origin, error) from error
        return np.stack(local.pair_crop(*pair, sample_seed))  # (2, crop, crop, 3) uint8

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        pending: deque[list[tuple[int, Future]]] = deque()
        for table in groups:
            pending.append(_submit(pool, load, table, index, seed))
            if len(pending) > prefetch:
                yield _assemble(pending.popleft())
        while pending:
            yield _assemble(pending.popleft())


def _submit(
    pool: ThreadPoolExecutor, load: Callable, table: pa.Table, index: Sequence[int], seed: int
) -> list[tuple[int, Future]]:
    jobs = []
    for row in table.to_pylist():
        samples = zip(row["degraded"], row["clean"], row["origin"], strict=True)
        for place, (task, sample) in enumerate(zip(index, samples, strict=True)):
            jobs.append((task, pool.submit(load, *sample, mixed_seed(seed, row["group"], place))))
    return sorted(jobs, key=lambda job: job[0])  # stable: order of groups inside each task


def _assemble(jobs: list[tuple[int, Future]]) -> Batch:
    return to_batch([job.result() for _, job in jobs], [task for task, _ in jobs])


def to_batch(pairs: Sequence[np.ndarray], tasks: Sequence[int]) -> Batch:
    """Pairs of grey levels, each (2, crop, crop, 3) uint8 with the degraded image first, as a batch."""
    stacked = torch.from_numpy(np.stack(pairs))
    degraded, clean = stacked.permute(1, 0, 4, 2, 3).float().div_(255).contiguous()
    return Batch(degraded, clean, torch.tensor(tasks))
