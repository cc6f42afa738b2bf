"""The loss: distances, balance between tasks and workers, conflict of their gradients."""

import math

import pytest
import torch
import torch.multiprocessing

from ipt.training.losses import (
    FAINT,
    balanced_loss,
    gradient_conflict,
    restoration_loss,
    running_scale,
    sample_errors,
    task_errors,
    task_means,
)


def test_task_means_are_in_task_order():
    means = task_means(torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([2, 0, 2, 1]), torch.arange(3))
    assert means.tolist() == [5, 7, 2]


def test_parts_of_the_values_add_up_to_the_task_means():
    values, index, tasks, counts = torch.rand(9), torch.tensor([0, 1, 2] * 3), torch.arange(3), torch.full((3,), 3)
    parts = [task_means(values[part], index[part], tasks, counts) for part in (slice(0, 2), slice(2, 3), slice(3, 9))]
    torch.testing.assert_close(torch.stack(parts).sum(0), task_means(values, index, tasks))


def test_tasks_pull_by_their_relative_error():
    errors = torch.tensor([0.001, 0.1, 0.4], requires_grad=True)
    balanced_loss(errors, running_scale(errors, None), torch.ones(3)).backward()
    assert (errors * errors.grad).tolist() == pytest.approx([1 / 3] * 3)


def test_tasks_pull_by_their_weights():
    errors = torch.tensor([0.001, 0.1, 0.4], requires_grad=True)
    balanced_loss(errors, running_scale(errors, None), torch.tensor([2.0, 1.0, 1.0])).backward()
    assert (errors * errors.grad).tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_the_scale_of_a_task_follows_its_error_slowly():
    scale = running_scale(torch.tensor([1.0, 2.0]), None)
    scale = running_scale(torch.tensor([0.0, 2.0]), scale)
    assert scale.tolist() == pytest.approx([0.95, 2.0])
    loss = balanced_loss(torch.tensor([0.95, 4.0]), scale, torch.ones(2))
    assert loss.item() == pytest.approx((1 + 4 / 2) / 2)


def test_all_workers_share_one_scale(tmp_path):
    torch.multiprocessing.spawn(scale_of_worker, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.tolist() == second.tolist() == pytest.approx([2.0, 3.0])


def scale_of_worker(rank: int, folder) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    scale = running_scale(torch.tensor([[1.0, 4.0], [3.0, 2.0]][rank]), None)
    torch.save(scale, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_workers_with_unequal_batches_pull_as_one_would(tmp_path):
    torch.multiprocessing.spawn(loss_of_part, (tmp_path,), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = torch.tensor(SAMPLES, requires_grad=True)
    scale = running_scale(whole.mean(1), None)
    loss = balanced_loss(whole.mean(1), scale, WEIGHTS)
    loss.backward()
    gradient = torch.cat([gradient for _, _, gradient in parts], 1) / 2  # DDP takes the mean over workers
    torch.testing.assert_close(gradient, whole.grad)
    assert sum(loss.item() for loss, _, _ in parts) / 2 == pytest.approx(loss.item())
    for _, own, _ in parts:
        torch.testing.assert_close(own, scale)


SAMPLES = [[0.1, 0.4, 0.7], [2.0, 3.0, 7.0]]  # errors by task
WEIGHTS = torch.tensor([2.0, 1.0])


def loss_of_part(rank: int, folder) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    own = torch.tensor(SAMPLES)[:, [slice(0, 2), slice(2, 3)][rank]].requires_grad_()
    weight = own.shape[1] * 2 / 3
    scale = running_scale(own.mean(1), None, weight)
    loss = balanced_loss(own.mean(1), scale, WEIGHTS, weight)
    loss.backward()
    torch.save((loss.detach(), scale, own.grad), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class Shift(torch.nn.Module):
    """Adds a shared colour: what opposite tasks want of it, they undo."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = torch.nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, degraded, index):
        return degraded + self.colour


def conflict_of(*changes: tuple[float, float, float]) -> float:
    clean = torch.full((len(changes), 3, 4, 4), 0.5)
    degraded = clean + torch.tensor(changes)[..., None, None]
    return gradient_conflict(Shift(), degraded, clean, torch.arange(len(changes)))


def test_gradient_conflict_is_the_mean_cosine_of_the_tasks_gradients():
    assert conflict_of((0.1, 0.1, 0.1), (0.2, 0.2, 0.2)) == pytest.approx(1, abs=1e-4)
    assert conflict_of((0.1, 0.1, 0.1), (-0.1, -0.1, -0.1)) == pytest.approx(-1, abs=1e-4)
    assert conflict_of((0.1, 0, 0), (0, 0.1, 0)) == pytest.approx(0, abs=1e-4)
    assert conflict_of((0.1, 0, 0), (0.2, 0, 0), (-0.1, 0, 0)) == pytest.approx(-1 / 3, abs=1e-4)
    assert math.isnan(conflict_of((0.1, 0, 0)))


def test_restoration_loss_is_quadratic_for_small_errors_and_linear_for_large_ones():
    restored, clean = torch.rand(2, 4, 3, 6, 5)
    losses = restoration_loss(restored, clean)
    assert losses.shape == (4,)
    for sample in range(4):
        difference = restored[sample] - clean[sample]
        torch.testing.assert_close(losses[sample], ((difference**2 + 0.01).sqrt() - 0.1).mean())
    assert restoration_loss(clean, clean).abs().max() < 1e-7
    small, large = (restoration_loss(clean + shift, clean)[0].item() for shift in (0.001, 100.0))
    assert small == pytest.approx(0.001**2 / 0.2, rel=0.05)
    assert large == pytest.approx(99.9, rel=1e-4)


def test_the_term_of_the_frequencies_is_the_mean_difference_of_the_parts_of_the_fourier_transforms():
    restored, clean = torch.rand(2, 2, 3, 6, 8)
    transforms = [torch.fft.rfft2(images, norm="ortho") for images in (restored, clean)]
    term = (transforms[0] - transforms[1]).flatten(1)
    expected = (term.real.abs() + term.imag.abs()).mean(1) / 2
    added = restoration_loss(restored, clean, 4.0) - restoration_loss(restored, clean)
    torch.testing.assert_close(added, 4 * expected)
    assert restoration_loss(clean, clean, 4.0).abs().max() < 1e-6


def test_gradient_conflict_is_that_of_the_loss_with_its_frequencies():
    degraded, clean = torch.rand(2, 2, 3, 4, 4)
    plain, with_term = (gradient_conflict(Shift(), degraded, clean, torch.arange(2), weight) for weight in (0.0, 4.0))
    assert plain != with_term


@pytest.mark.parametrize("frequency_weight", [0.0, 1.0, 4.0])
def test_errors_begin_at_faint_noise(frequency_weight):
    torch.manual_seed(0)
    noise = FAINT * torch.randn(2, 3, 256, 256)
    faint = restoration_loss(noise, torch.zeros_like(noise), frequency_weight)
    nothing = sample_errors(torch.zeros(2), frequency_weight)
    torch.testing.assert_close(nothing**3, faint, rtol=0.01, atol=0)


def test_the_error_of_a_task_is_the_mean_cube_root():
    faint = FAINT**2 / 0.2
    errors = task_errors(torch.tensor([0.001, 0.027, 0.008]) - faint, torch.tensor([0, 0, 1]), torch.arange(2))
    torch.testing.assert_close(errors, torch.tensor([0.2, 0.2]), atol=1e-3, rtol=0)
