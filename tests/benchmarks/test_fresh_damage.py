"""Training with damage made anew: blocks by their number, crops that belong together, a checkpoint that opens."""

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.fresh_damage import Phase, Trainer, train
from benchmarks.fresh_pairs import POOL, Blocks, Pool, read_photographs
from ipt.network.checkpoint import load_checkpoint
from ipt.network.task_network import TaskNetwork
from pipelines.common.params import load_params

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = cv2.resize(rng.integers(0, 256, (8, 10, 3), np.uint8), (80, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@pytest.fixture
def params(make_config):
    real = load_params(Path(__file__).parents[2] / "params.yaml")
    tasks = {name: real.tasks[name] for name in ("denoise", "dehaze")}
    return dataclasses.replace(real, tasks=tasks, ingest=dataclasses.replace(real.ingest, left_alone=0.3))


@pytest.fixture
def blocks(photographs, params) -> Blocks:
    return Blocks(read_photographs(photographs, (1.0, 0.6), 32), params, 4, 32)


def test_pictures_too_small_for_a_square_are_left_out(photographs):
    sizes = [picture.shape[:2] for picture in read_photographs(photographs, (1.0, 0.5, 1.5), 40)]
    assert sizes == [(64, 80), (96, 120)] * 3


def test_a_block_is_a_function_of_its_number(blocks):
    assert np.array_equal(blocks.block(3), blocks.block(3))
    assert not np.array_equal(blocks.block(3), blocks.block(4))


def test_some_pairs_are_to_be_left_alone_and_the_others_are_damaged(blocks):
    pairs = np.concatenate([blocks.block(number) for number in range(8)], axis=1)
    alone = (pairs[:, :, 0] == pairs[:, :, 1]).all((2, 3, 4))
    assert 0.1 < alone.mean() < 0.5


def test_crops_of_a_pair_are_cut_and_turned_alike(params):
    """Degraded is clean + 1 at every pixel, and so are the crops."""
    clean = torch.arange(2 * 3 * 24 * 24 * 3).remainder(250).view(2, 3, 1, 24, 24, 3).to(torch.uint8)
    block = torch.cat([clean + 1, clean], 2)
    pool = Pool(itertools.repeat(block), CPU, 0)
    degraded, found = pool.draw(16, 8)
    assert degraded.shape == (32, 3, 8, 8)
    torch.testing.assert_close(degraded - found, torch.full_like(found, 1 / 255))
    assert len({tuple(crop.flatten().tolist()) for crop in found}) > 16


def test_the_pool_takes_the_newest_block_for_the_oldest():
    blocks = iter([torch.full((1, 1, 2, 4, 4, 3), number, dtype=torch.uint8) for number in range(POOL + 1)])
    pool = Pool(blocks, CPU, 0)
    pool.renew()
    assert sorted(pool.pairs[0, :, 0, 0, 0, 0, 0].tolist()) == list(range(1, POOL + 1))


def test_it_learns_and_writes_a_checkpoint_and_a_log(blocks, params, make_config, tmp_path):
    config = make_config(tasks=tuple(params.tasks))
    torch.manual_seed(0)
    network = TaskNetwork(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = (torch.from_numpy(blocks.block(number % 4)) for number in itertools.count())
    held_out = torch.from_numpy(blocks.block(99))
    trainer, phases = Trainer(network, params, compiled=False), [Phase(0.5, 4, 16), Phase(1, 2, 24)]
    train(trainer, Pool(batches, CPU, 0), 1.0, phases, 2, held_out, tmp_path)
    log = pd.read_csv(tmp_path / "log.csv")
    assert {"step", "samples", "denoise", "dehaze"} <= set(log.columns)
    assert log["samples"].iloc[0] == log["step"].iloc[0] * 8  # then four a step
    assert log["step"].iloc[-1] * 4 < log["samples"].iloc[-1] < log["step"].iloc[-1] * 8
    written = load_checkpoint(TaskNetwork, tmp_path).state_dict()
    assert any(not torch.equal(written[name], value) for name, value in before.items())


def test_a_step_equals_that_of_the_pipeline(params, make_config):
    """The same loss, clipping and learning rates as `ipt.training.fit`, without its waits."""
    from ipt.training.batch import Batch
    from ipt.training.fit import TrainingState, synchronous_step
    from pipelines.training.choice import training_settings

    params = dataclasses.replace(params, train=dataclasses.replace(params.train, precision="fp32"))
    config = make_config(tasks=tuple(params.tasks))
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(TaskNetwork(config))
    clean = torch.rand(4, 3, 16, 16)
    degraded = (clean * 0.7).contiguous()
    trainer = Trainer(networks[0], params, compiled=False)
    state = TrainingState(networks[1], dataclasses.replace(training_settings(params, 3000, False), warmup_steps=300))
    for step in range(3):
        trainer.update(degraded, clean, 0.0)
        synchronous_step(state, networks[1], Batch(degraded, clean, torch.tensor([0, 0, 1, 1])))
        state.step = step + 1
    pairs = [networks, (trainer.averaged(), state.ema.module)]
    for ours, theirs in pairs:
        for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(our, their)
