"""DistributedDataParallel with its default settings: two processes make the step of one on the joined batch."""

import dataclasses

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from ipt.model import InstructIPT
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings, TrainingState, fit

SETTINGS = TrainingSettings(
    steps=4, learning_rate=1e-3, bias_learning_rate=1e-2, warmup_steps=1, weight_decay=1e-4, clip_norm=100.0,
    ema_decay=0.5, task_weights=(1.0, 2.0, 1.0), bf16=False,
)  # fmt: skip


def new_state(config, **changes) -> TrainingState:
    torch.manual_seed(0)
    model = InstructIPT(config)
    return TrainingState(model, dataclasses.replace(SETTINGS, **changes))


def batches(part: slice):
    """Four samples of each of three tasks a step; a worker takes `part` of each task's."""
    for step in range(SETTINGS.steps):
        generator = torch.Generator().manual_seed(step)
        clean, noise = torch.rand(2, 3, 4, 3, 8, 8, generator=generator)
        degraded = clean + 0.3 * noise * torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1, 1, 1)
        index = torch.arange(3).repeat_interleave(len(range(4)[part]))
        yield Batch(degraded[:, part].flatten(0, 1), clean[:, part].flatten(0, 1), index)


def worker(rank: int, config, folder, at_once: int | None) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    state = new_state(config, samples_at_once=at_once)
    fit(state, batches(slice(2 * rank, 2 * rank + 2)), network=DistributedDataParallel(state.model))
    torch.save(state.model.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture
def joined(make_config):
    state = new_state(make_config(head_width=8))
    fit(state, batches(slice(0, 4)))
    return state.model.state_dict()


@pytest.mark.parametrize("at_once", [None, 4])
def test_two_processes_equal_one_on_the_joined_batch(make_config, joined, tmp_path, at_once):
    torch.multiprocessing.spawn(worker, (make_config(head_width=8), tmp_path, at_once), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    start = new_state(make_config(head_width=8)).model.state_dict()
    for name, value in joined.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, atol=2e-5, rtol=1e-3)
    assert max((joined[name] - value).abs().max() for name, value in start.items()) > 1e-3
