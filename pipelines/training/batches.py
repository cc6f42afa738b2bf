"""Groups of encoded samples to mixed-task batches: decoded, cropped and turned in threads beside the training."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch

from ipt.training.fit import Batch
from pipelines.common.params import Ingest, Params
from pipelines.data.drawings import draw
from pipelines.data.rows import decode_levels
from pipelines.data.shards import damaged
from pipelines.training.crops import PairCrop
from pipelines.training.groups import Mix, mixed_seed, read_groups


def training_batches(groups: Iterable[pa.Table], index: Sequence[int], settings: Ingest, seed: int) -> Iterator[Batch]:
    """Decode, crop, flip and turn each table of groups into a batch, in threads ahead of the consumer.

    The samples of a batch are sorted by task. What happens to a sample depends on (seed, its group, its place). A share
    `left_alone` of them shows nothing of its task's damage and is its own target, so that the model learns to do no
    harm: the clean image, the degraded one of another task in the group, or a drawing.
    """
    local = threading.local()

    def load(degraded: bytes, clean: bytes, origin: str, sample_seed: int) -> np.ndarray:
        """A sample's crops, (2, crop, crop, 3) uint8; no bytes stand for a drawing."""
        if not degraded:
            return np.stack([draw(np.random.default_rng(sample_seed), settings.crop)] * 2)
        if not hasattr(local, "pair_crop"):
            local.pair_crop = PairCrop(settings.crop)
        try:
            pair = decode_levels(degraded), decode_levels(clean)
        except ValueError as error:
            raise damaged(origin, error) from error
        return np.stack(local.pair_crop(*pair, sample_seed))

    with ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode") as pool:
        pending: deque[list[tuple[int, Future]]] = deque()
        for table in groups:
            pending.append(_submit(pool, load, table, index, seed, settings.left_alone))
            if len(pending) > settings.prefetch_steps:
                yield _assemble(pending.popleft())
        while pending:
            yield _assemble(pending.popleft())


def group_batches(params: Params, mix: Mix, first_step: int, steps: int) -> Iterator[Batch]:
    """The stream's batches of `steps` steps from `first_step` on, for one process that trains alone."""
    per_step = params.train.groups_per_step
    first, last = first_step * per_step, (first_step + steps) * per_step
    segment = max(params.ray.groups_per_read // per_step, 1) * per_step
    tables = (
        read.slice(offset, per_step)
        for read in (read_groups(mix, start, min(start + segment, last)) for start in range(first, last, segment))
        for offset in range(0, len(read), per_step)
    )
    return training_batches(tables, mix.index, params.ingest, params.seed)


def _submit(
    pool: ThreadPoolExecutor, load: Callable, table: pa.Table, index: Sequence[int], seed: int, left_alone: float
) -> list[tuple[int, Future]]:
    jobs = []
    for row in table.to_pylist():
        samples = list(zip(row["degraded"], row["clean"], row["origin"], strict=True))
        for place, task in enumerate(index):
            sample_seed = mixed_seed(seed, row["group"], place)
            sample = samples[place]
            if left_alone:
                sample = _sample(samples, index, place, left_alone, np.random.default_rng([sample_seed, 1]))
            jobs.append((task, pool.submit(load, *sample, sample_seed)))
    return sorted(jobs, key=lambda job: job[0])  # stable: order of groups inside each task


def _sample(
    samples: Sequence[tuple[bytes, bytes, str]],
    index: Sequence[int],
    place: int,
    left_alone: float,
    rng: np.random.Generator,
) -> tuple[bytes, bytes, str]:
    """Degraded, clean and origin of the sample at `place`, or of what stands in for it; both empty for a drawing."""
    degraded, clean, origin = samples[place]
    if rng.random() >= left_alone:
        return degraded, clean, origin
    others = [sample for sample, task in zip(samples, index, strict=True) if task != index[place]]
    kind = rng.random()
    if kind < 0.4 and others:
        degraded, _, origin = others[rng.integers(len(others))]
        return degraded, degraded, origin
    return (clean, clean, origin) if kind < 0.85 else (b"", b"", origin)


def _assemble(jobs: list[tuple[int, Future]]) -> Batch:
    return to_batch([job.result() for _, job in jobs], [task for task, _ in jobs])


def to_batch(pairs: Sequence[np.ndarray], tasks: Sequence[int]) -> Batch:
    """Pairs of grey levels, each (2, crop, crop, 3) uint8 with the degraded image first, as a batch."""
    stacked = torch.from_numpy(np.stack(pairs))
    degraded, clean = stacked.permute(1, 0, 4, 2, 3).float().div_(255).contiguous()
    return Batch(degraded, clean, torch.tensor(tasks))
