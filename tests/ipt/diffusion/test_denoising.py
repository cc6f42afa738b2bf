"""Targets, weights, timesteps, one training step and sampling of diffusion denoisers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import nn

from ipt.biases.adapters import hold_backbone
from ipt.diffusion.denoiser import modulate_denoiser
from ipt.diffusion.denoising import (
    denoising_errors,
    denoising_step,
    denoising_target,
    draw_intervals,
    draw_timesteps,
    interval_errors,
    min_snr_weights,
    sample_images,
)
from ipt.diffusion.noise_levels import noise_intervals
from ipt.network.modulation import modulated_layers
from ipt.training.fit import TrainingSettings, TrainingState

KINDS = ("epsilon", "v_prediction", "sample")


def scheduler(kind="epsilon"):
    return DDPMScheduler(1000, prediction_type=kind)


class Knowing(nn.Module):
    """A denoiser that knows the only clean image there is, and so predicts without error."""

    def __init__(self, scheduler, clean):
        super().__init__()
        self.scheduler, self.clean = scheduler, clean
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, sample, timestep, return_dict=False):
        clean = (self.clean * 2 - 1).expand_as(sample)
        abar = self.scheduler.alphas_cumprod[timestep].view(-1, 1, 1, 1)
        noise = (sample - abar.sqrt() * clean) / (1 - abar).sqrt()
        velocity = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        return ({"epsilon": noise, "v_prediction": velocity, "sample": clean}[self.scheduler.config.prediction_type],)


@pytest.fixture(params=["epsilon", "v_prediction"])
def state(request):
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    steps = scheduler(request.param)
    settings = TrainingSettings(
        steps=30, learning_rate=3e-3, bias_learning_rate=3e-3, warmup_steps=3, weight_decay=0.0, clip_norm=1.0,
        ema_decay=0.5, task_weights=(), bf16=False,
    )  # fmt: skip
    return TrainingState(modulate_denoiser(network, steps, 4, rank=2), settings), steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoiser_that_knows_the_image_makes_no_error_and_samples_it(kind):
    clean = torch.rand(1, 3, 8, 8)
    steps = scheduler(kind)
    knowing = Knowing(steps, clean)
    errors = denoising_errors(
        knowing, steps, clean.expand(4, -1, -1, -1), torch.tensor([3, 200, 500, 800]), torch.randn(4, 3, 8, 8)
    )
    assert errors.shape == (4,)
    assert errors.max() < 1e-6
    images = sample_images(knowing, DDIMScheduler.from_config(steps.config), 2, 8, seed=0, steps=20)
    torch.testing.assert_close(images, clean.expand(2, -1, -1, -1), atol=1e-2, rtol=0)


def test_the_target_is_what_the_scheduler_is_told_the_denoiser_predicts():
    clean, noise, t = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([10, 900])
    assert torch.equal(denoising_target(scheduler("epsilon"), clean, noise, t), noise)
    assert torch.equal(denoising_target(scheduler("sample"), clean, noise, t), clean)
    velocity = denoising_target(scheduler("v_prediction"), clean, noise, t)
    abar = scheduler().alphas_cumprod[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(velocity, abar.sqrt() * noise - (1 - abar).sqrt() * clean)
    with pytest.raises(ValueError, match="expected prediction type"):
        denoising_target(type("Other", (), {"config": object()})(), clean, noise, t)


def test_min_snr_weights_say_the_same_of_each_prediction():
    """The weighted error is that of the image times min(SNR, gamma), whatever is predicted."""
    t, gamma = torch.tensor([1, 50, 300, 700, 990]), 5.0
    abar = scheduler().alphas_cumprod[t].double()
    snr = abar / (1 - abar)
    image_error = torch.rand(5, dtype=torch.float64)
    error = {"sample": image_error, "epsilon": image_error * snr, "v_prediction": image_error * (snr + 1)}
    for kind in KINDS:
        weighted = min_snr_weights(scheduler(kind), t, gamma) * error[kind]
        torch.testing.assert_close(weighted, image_error * snr.clamp(max=gamma), rtol=1e-4, atol=1e-8)
    assert (snr > gamma).any()
    assert (snr < gamma).any()


def test_a_batch_holds_every_interval_equally_often_in_order():
    table = noise_intervals(scheduler().alphas_cumprod, 4)
    drawn = draw_timesteps(table, 400, torch.Generator().manual_seed(0))
    assert table[drawn].tolist() == [interval for interval in range(4) for _ in range(100)]
    assert len(drawn.unique()) > 200
    assert torch.equal(drawn, draw_timesteps(table, 400, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="multiple of the 4 intervals, got 6"):
        draw_timesteps(table, 6, torch.Generator())


def test_a_share_of_the_samples_meets_another_interval():
    own = torch.arange(4).repeat_interleave(2000)
    met = draw_intervals(own, 4, 0.15, torch.Generator().manual_seed(0))
    moved = met != own
    assert moved.float().mean() == pytest.approx(0.15, abs=0.02)
    counts = torch.stack([torch.bincount(met[moved & (own == interval)], minlength=4) for interval in range(4)])
    assert not counts.diagonal().any()
    assert counts[~torch.eye(4, dtype=torch.bool)].min() > 60  # of 100 in the mean
    assert torch.equal(draw_intervals(own, 4, 0.0, torch.Generator()), own)


@pytest.mark.parametrize(("intervals", "outside"), [(4, 1.0), (4, -0.1), (1, 0.1)])
def test_a_share_that_cannot_be_is_refused(intervals, outside):
    with pytest.raises(ValueError, match=f"outside: expected a share .* got {outside} of {intervals}"):
        draw_intervals(torch.zeros(4, dtype=torch.long), intervals, outside, torch.Generator())


def test_a_held_backbone_stays_to_the_bit_while_the_biases_learn(state):
    state, steps = state
    hold_backbone(state.model)
    state = TrainingState(state.model, state.settings)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    clean, t, noise = torch.rand(4, 3, 16, 16), torch.tensor([3, 100, 500, 900]), torch.randn(4, 3, 16, 16)
    for _ in range(2):
        denoising_step(state, state.model, steps, clean, t, noise, interval=torch.tensor([0, 1, 1, 3]))
    for name, value in state.model.state_dict().items():
        if not name.endswith(("task_up", "task_down")):
            assert torch.equal(value, before[name]), name
            assert torch.equal(state.ema.module.state_dict()[name], before[name]), name
    for layer in modulated_layers(state.model).values():
        assert not layer.task_up[2].any()  # no sample met it
        assert layer.task_up[1].any()


@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_training_lowers_the_error_and_moves_backbone_and_every_bias(state, min_snr):
    state, steps = state
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((8, 3, 16, 16), 0.8)
    table = state.model.interval_of_timestep
    before = interval_errors(state.model, steps, table, clean, seed=0)
    weight = state.model.denoiser.conv_in.weight.detach().clone()
    for _ in range(30):
        t, noise = draw_timesteps(table, 8, generator), torch.randn(clean.shape, generator=generator)
        errors = denoising_step(state, state.model, steps, clean, t, noise, min_snr=min_snr)
        assert errors.shape == (8,)
    assert state.step == 30
    after = interval_errors(state.model, steps, table, clean, seed=0)
    assert sum(after) < 0.8 * sum(before)
    assert not torch.equal(weight, state.model.denoiser.conv_in.weight)
    for name, layer in modulated_layers(state.model).items():
        assert layer.task_up.detach().abs().amax((1, 2)).min() > 0, name


def test_min_snr_changes_what_a_step_does(state):
    state, steps = state
    clean, t, noise = torch.rand(4, 3, 16, 16), torch.tensor([3, 100, 500, 900]), torch.randn(4, 3, 16, 16)
    gradients = []
    for min_snr in (None, 5.0):
        state.settings = TrainingSettings(**{**vars(state.settings), "learning_rate": 0.0, "clip_norm": 1e9})
        for group in state.optimizer.param_groups:
            group["peak"] = 0.0
        denoising_step(state, state.model, steps, clean, t, noise, min_snr=min_snr)
        gradients.append(state.model.denoiser.conv_out.weight.grad.clone())
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


def test_a_diverged_step_says_so(state):
    state, steps = state
    clean = torch.full((4, 3, 16, 16), float("inf"))
    with pytest.raises(RuntimeError, match="step 1: gradient norm nan: training has diverged"):
        denoising_step(state, state.model, steps, clean, torch.tensor([3, 100, 500, 900]), torch.randn(4, 3, 16, 16))


def test_errors_of_intervals_are_the_same_at_every_call_and_of_their_own_timesteps(state):
    state, steps = state
    table, clean = state.model.interval_of_timestep, torch.rand(70, 3, 16, 16)
    seen = []
    real = state.model.eval().merged
    state.model.merged = lambda interval: seen.append(interval) or real(interval)
    errors = interval_errors(state.model, steps, table, clean, seed=3)
    assert errors == interval_errors(state.model, steps, table, clean, seed=3)
    assert errors != interval_errors(state.model, steps, table, clean, seed=4)
    assert seen[:8] == [0, 0, 1, 1, 2, 2, 3, 3]  # 70 images in two parts


def test_samples_depend_on_the_seed_alone(state):
    state, steps = state
    model, ddim = state.model.eval(), DDIMScheduler.from_config(steps.config)
    images = sample_images(model, ddim, 2, 16, seed=1, steps=4)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, sample_images(model, ddim, 2, 16, seed=1, steps=4))
    assert not torch.equal(images, sample_images(model, ddim, 2, 16, seed=2, steps=4))
