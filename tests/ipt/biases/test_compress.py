"""Compression of task biases: as good as any matrix of that rank can be, and honest about it."""

import itertools

import pytest
import torch

from ipt.biases.compress import compress_biases, truncate
from ipt.model import InstructIPT
from ipt.network.modulation import modulated_layers


def product(model) -> dict[str, torch.Tensor]:
    return {
        name: (layer.task_up.double() @ layer.task_down.double()).detach()
        for name, layer in modulated_layers(model.backbone).items()
    }


@pytest.fixture
def model(make_config, randomized):
    return randomized(make_config(rank=6, layers=("*",)))


@pytest.mark.parametrize("rank", range(1, 7))
def test_the_squared_error_is_the_discarded_singular_energy(model, rank):
    compressed, report = compress_biases(model, rank)
    before, after = product(model), product(compressed)
    assert [row.layer for row in report] == list(before)
    for row in report:
        energy = torch.linalg.svdvals(before[row.layer]).square()
        error = (before[row.layer] - after[row.layer]).square().sum((1, 2))
        total = energy.sum(1)
        torch.testing.assert_close(error / total, energy[:, rank:].sum(1) / total, atol=1e-6, rtol=1e-4)
        kept = (energy[:, :rank].sum(1) / total).tolist()
        assert list(row.energy_kept) == pytest.approx(kept, abs=1e-6)
        assert torch.linalg.matrix_rank(after[row.layer], atol=1e-4).max() <= rank


@pytest.mark.parametrize("tasks", [(0, 1, 2), (2, 0)])
def test_full_rank_is_exact(model, tasks):
    compressed, report = compress_biases(model, 6)
    images, index = torch.rand(len(tasks), 3, 8, 12), torch.tensor(tasks)
    assert torch.equal(compressed(images, index), model(images, index))
    assert all(share == pytest.approx(1) for row in report for share in row.energy_kept)
    assert all(row.rank == row.rank_before and row.bytes == row.bytes_before for row in report)


def test_a_higher_rank_is_never_worse(model):
    before = product(model)
    errors = []
    for rank in range(1, 7):
        after = product(compress_biases(model, rank)[0])
        errors.append([(before[name] - after[name]).square().sum((1, 2)) for name in before])
    for worse, better in itertools.pairwise(errors):
        for high, low in zip(worse, better, strict=True):
            assert (low <= high + 1e-6).all()


@pytest.mark.parametrize("rank", [0, -1, -6, 7])
def test_ranks_below_1_or_above_the_models_are_refused(model, rank):
    with pytest.raises(ValueError, match=f"^compress: expected a rank from 1 to the model's 6, got {rank}$"):
        compress_biases(model, rank)


def test_biases_that_are_zero_stay_zero_and_keep_all_energy(make_config):
    model = InstructIPT(make_config(rank=3))
    compressed, report = compress_biases(model, 1)
    assert all(not weight.any() for weight in product(compressed).values())
    assert all(row.energy_kept == (1.0, 1.0, 1.0) for row in report)
    assert all(torch.isfinite(p).all() for p in compressed.parameters())


def test_the_report_counts_bytes_and_ranks_of_the_factors(model):
    compressed, report = compress_biases(model, 2)
    layers, small = modulated_layers(model.backbone), modulated_layers(compressed.backbone)
    assert list(small) == [row.layer for row in report]
    for row in report:
        for layer, count, rank in (
            (layers, row.bytes_before, row.rank_before),
            (small, row.bytes, row.rank),
        ):
            up, down = layer[row.layer].task_up, layer[row.layer].task_down
            assert count == 4 * (up.numel() + down.numel())
            assert rank == up.shape[-1] == down.shape[1]


@pytest.mark.parametrize("training", [True, False])
def test_the_copy_differs_in_its_biases_only_and_the_model_stays_as_it_was(model, training):
    before = {name: value.clone() for name, value in model.train(training).state_dict().items()}
    compressed, _ = compress_biases(model, 2)
    assert compressed.training is training
    assert compressed.config.rank == 2
    assert model.config.rank == 6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for name, value in compressed.state_dict().items():
            if "task_" not in name:
                assert torch.equal(value, before[name])
                value.add_(1)  # a copy shares no memory
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("rows", "columns", "rank", "small"), [(5, 7, 4, 2), (9, 4, 4, 1), (4, 4, 4, 3), (6, 5, 1, 1)])
def test_truncate_gives_the_best_factors_and_the_share_of_energy(rows, columns, rank, small):
    up, down = torch.randn(3, rows, rank), torch.randn(3, rank, columns)
    up[1] = 0
    less_up, less_down, kept = truncate(up, down, small)
    assert less_up.shape == (3, rows, small)
    assert less_down.shape == (3, small, columns)
    u, s, v = torch.linalg.svd(up @ down)
    best = (u[:, :, :small] * s[:, None, :small]) @ v[:, :small]
    torch.testing.assert_close(less_up @ less_down, best, atol=1e-4, rtol=1e-4)
    assert kept[1] == 1
    share = s.square()[:, :small].sum(1) / s.square().sum(1)
    torch.testing.assert_close(kept[[0, 2]].float(), share[[0, 2]], atol=1e-5, rtol=1e-5)
    assert (less_up.dtype, less_down.dtype) == (up.dtype, down.dtype)
