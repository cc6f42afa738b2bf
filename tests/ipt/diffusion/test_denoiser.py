"""Biases by noise level on diffusers' own networks: intervals, mixed batches, merging, files, bad input."""

import copy
import json

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)

from ipt.diffusion.denoiser import (
    IntervalDenoiser,
    export_merged,
    load_denoiser,
    modulate_denoiser,
    save_adapter,
)
from ipt.diffusion.denoising import sample_images
from ipt.diffusion.noise_levels import boundaries, log_snr, noise_intervals
from ipt.network.modulation import modulated_layers, task_parameters

INTERVALS = 4
close = {"atol": 1e-4, "rtol": 1e-4}


def unet():
    network = UNet2DModel(
        sample_size=16, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return network, lambda count: {}


def dit():
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, num_layers=2, sample_size=16, patch_size=4,
        num_embeds_ada_norm=2, norm_num_groups=1,
    )  # fmt: skip
    return network, lambda count: {"class_labels": torch.arange(count) % 2}


def scheduler(kind="epsilon", **changes):
    return DDPMScheduler(1000, prediction_type=kind, **changes)


def trained(build, kind="epsilon"):
    """A plain network, the same with biases that are not zero, and what it is called with beside the image."""
    torch.manual_seed(0)
    network, conditions = build()
    network.eval()
    denoiser = modulate_denoiser(copy.deepcopy(network), scheduler(kind), INTERVALS, rank=2).eval()
    with torch.no_grad():
        for factor in task_parameters(denoiser):
            factor.copy_(torch.randn_like(factor) * 0.1)
    return network, denoiser, conditions


@pytest.fixture(params=[unet, dit], ids=lambda build: build.__name__)
def case(request):
    return trained(request.param)


def timesteps_of_each_interval():
    """One timestep in each interval, cleanest first."""
    return torch.tensor([3, 100, 500, 900])


def test_intervals_are_equal_lengths_of_log_snr_cleanest_first():
    schedule = scheduler().alphas_cumprod
    index = noise_intervals(schedule, 5)
    assert (index.diff() >= 0).all()
    assert (index[0], index[-1]) == (0, 4)
    levels = log_snr(schedule)
    length = (levels.max() - levels.min()) / 5
    for interval in range(5):
        inside = levels[index == interval]
        assert inside.max() <= levels.max() - interval * length + 1e-6
        assert inside.min() >= levels.max() - (interval + 1) * length - 1e-6


def test_steps_without_signal_belong_to_the_last_interval():
    schedule = scheduler(rescale_betas_zero_snr=True).alphas_cumprod.clone()
    schedule[-1] = 0
    assert noise_intervals(schedule, 3)[-1] == 2


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "1 to 1000 intervals"), (1001, "1 to 1000 intervals.*got 1001"), (600, "none of 1000 timesteps is in")],
)
def test_a_number_of_intervals_that_cannot_be_is_refused(count, message):
    network, _ = unet()
    with pytest.raises(ValueError, match=message):
        modulate_denoiser(network, scheduler(), count, rank=2)
    assert not modulated_layers(network)


def test_intervals_may_be_given_by_their_first_timesteps():
    schedule = scheduler().alphas_cumprod
    index = noise_intervals(schedule, [3, 500])
    assert index.tolist() == [0] * 3 + [1] * 497 + [2] * 500
    assert not noise_intervals(schedule, []).any()
    assert boundaries(index) == [3, 500]
    equal = noise_intervals(schedule, 5)
    assert torch.equal(noise_intervals(schedule, boundaries(equal)), equal)


@pytest.mark.parametrize("first", [[0, 5], [5, 5], [9, 5], [5, 1000], [-1]])
def test_first_timesteps_that_do_not_rise_are_refused(first):
    network, _ = unet()
    with pytest.raises(ValueError, match=r"expected first timesteps that rise from 1 to 999, got \["):
        modulate_denoiser(network, scheduler(), first, rank=2)
    assert not modulated_layers(network)


def test_a_schedule_that_gets_cleaner_is_refused():
    with pytest.raises(ValueError, match="expected a schedule whose alphas_cumprod falls"):
        noise_intervals(torch.tensor([0.9, 0.5, 0.6]), 2)


@pytest.mark.parametrize("ranks", [(4, 2), (4, 2, 1, 0, 0), (0, 0, 0, 0)])
def test_ranks_that_are_not_one_for_each_interval_are_refused(ranks):
    network, _ = unet()
    with pytest.raises(ValueError, match="expected a rank for each of 4 tasks"):
        modulate_denoiser(network, scheduler(), INTERVALS, ranks)
    assert not modulated_layers(network)


def test_at_start_it_is_the_plain_denoiser(case):
    plain, _, conditions = case
    fresh = modulate_denoiser(copy.deepcopy(plain), scheduler(), INTERVALS, rank=2).eval()
    x, t = torch.randn(4, 3, 16, 16), timesteps_of_each_interval()
    expected = plain(x, timestep=t, **conditions(4)).sample
    torch.testing.assert_close(fresh(x, timestep=t, **conditions(4)).sample, expected, **close)
    with torch.no_grad():  # merged
        torch.testing.assert_close(fresh(x[:1], timestep=t[:1], **conditions(1)).sample, expected[:1], **close)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 0, 1, 2)])
def test_a_mixed_batch_gives_each_sample_what_it_gets_alone(case, order):
    plain, denoiser, conditions = case
    t = timesteps_of_each_interval()[list(order)]
    x, given = torch.randn(len(t), 3, 16, 16), conditions(len(t))
    mixed = denoiser(x, t, **given).sample
    for place, interval in enumerate(order):
        alone = {name: value[place : place + 1] for name, value in given.items()}
        sample, step = x[place : place + 1], t[place : place + 1]
        torch.testing.assert_close(denoiser(sample, step, **alone).sample[0], mixed[place], **close)
        merged = denoiser.merged(interval)(sample, timestep=step, **alone).sample[0]
        torch.testing.assert_close(merged, mixed[place], **close)
        other = denoiser.merged((interval + 1) % INTERVALS)(sample, timestep=step, **alone).sample[0]
        assert (other - mixed[place]).abs().max() > 1e-3
    assert (plain(x, timestep=t, **given).sample - mixed).abs().max() > 1e-3


def test_samples_of_one_interval_meet_the_merged_denoiser_only_without_gradient(case):
    _, denoiser, conditions = case
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([900, 950])
    calls = []
    denoiser.merged(3).register_forward_hook(lambda *_: calls.append(1))
    with_gradient = denoiser(x, t, **conditions(2)).sample
    assert not calls
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, t, **conditions(2)).sample, with_gradient, **close)
        assert len(calls) == 1
        denoiser(x, torch.tensor([900, 3]), **conditions(2))
        assert len(calls) == 1
    denoiser.train()
    with torch.no_grad():
        denoiser(x, t, **conditions(2))
    assert len(calls) == 1


def test_a_changed_weight_is_merged_anew(case):
    _, denoiser, conditions = case
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([900])
    with torch.no_grad():
        before = denoiser(x, t, **conditions(1)).sample
        for factor in task_parameters(denoiser):
            factor.mul_(2)
        after = denoiser(x, t, **conditions(1)).sample
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(denoiser(x, t, **conditions(1)).sample, after, **close)
    changed = {name: value * 1.1 for name, value in denoiser.state_dict().items()}
    denoiser.load_state_dict(changed, assign=True)  # new parameters in the place of the old
    with torch.no_grad():
        merged = denoiser(x, t, **conditions(1)).sample
    assert (merged - after).abs().max() > 1e-3
    torch.testing.assert_close(denoiser(x, t, **conditions(1)).sample, merged, **close)


def test_a_copy_merges_weights_of_its_own(case):
    _, denoiser, conditions = case
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([900])
    with torch.no_grad():
        before = denoiser(x, t, **conditions(1)).sample
        copied = copy.deepcopy(denoiser)
        for factor in task_parameters(copied):
            factor.mul_(2)
        assert (copied(x, t, **conditions(1)).sample - before).abs().max() > 1e-3
        assert torch.equal(denoiser(x, t, **conditions(1)).sample, before)


def test_merged_denoisers_are_no_part_of_the_state(case):
    _, denoiser, _ = case
    before = set(denoiser.state_dict())
    denoiser.merged(0)
    assert set(denoiser.state_dict()) == before
    assert len(list(denoiser.modules())) == len(list(copy.deepcopy(denoiser).modules()))


@pytest.mark.parametrize("make", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_diffusers_schedulers_go_through_all_intervals(make, kind):
    _, denoiser, _ = trained(unet, kind)
    steps = make.from_config(scheduler(kind).config)
    seen = []
    real = denoiser.merged
    denoiser.merged = lambda interval: seen.append(interval) or real(interval)
    images = sample_images(denoiser, steps, 2, 16, seed=0, steps=40)
    assert images.shape == (2, 3, 16, 16)
    assert set(seen) == set(range(INTERVALS))
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(("pipeline", "make"), [(DDIMPipeline, DDIMScheduler), (DDPMPipeline, DDPMScheduler)])
def test_a_diffusers_pipeline_gives_the_images_of_our_loop(pipeline, make):
    plain, denoiser, _ = trained(unet)
    steps = make.from_config(scheduler().config)
    pipe = pipeline(unet=denoiser, scheduler=steps)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        batch_size=2, generator=torch.Generator().manual_seed(5), num_inference_steps=10, output_type="np"
    ).images
    ours = sample_images(denoiser, steps, 2, 16, seed=5, steps=10)
    torch.testing.assert_close(torch.from_numpy(theirs).permute(0, 3, 1, 2), ours, **close)
    assert (sample_images(plain, steps, 2, 16, seed=5, steps=10) - ours).abs().max() > 1e-2


def test_saved_beside_a_diffusers_backbone_and_loaded_in_two_lines(case, tmp_path):
    plain, denoiser, conditions = case
    denoiser.save_pretrained(tmp_path)
    backbone = type(plain).from_pretrained(tmp_path)
    loaded = load_denoiser(backbone, tmp_path, scheduler())
    x, t = torch.randn(4, 3, 16, 16), timesteps_of_each_interval()
    with torch.no_grad():
        expected = denoiser(x, t, **conditions(4)).sample
        assert torch.equal(loaded(x, t, **conditions(4)).sample, expected)
        again = plain(x, timestep=t, **conditions(4)).sample
        torch.testing.assert_close(type(plain).from_pretrained(tmp_path)(x, timestep=t, **conditions(4)).sample, again)


@pytest.mark.parametrize("build", [unet, dit])
def test_intervals_and_ranks_of_their_own_are_saved_and_merged(build, tmp_path):
    plain, _, conditions = trained(build)
    given = modulate_denoiser(copy.deepcopy(plain), scheduler(), [20, 200, 700], (8, 4, 2, 0)).eval()
    with torch.no_grad():
        for factor in task_parameters(given):
            factor.copy_(torch.randn_like(factor) * 0.1)
    given.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "noise_levels.json").read_text())
    assert (config["boundaries"], config["ranks"]) == ([20, 200, 700], [8, 4, 2, 0])
    loaded = load_denoiser(type(plain).from_pretrained(tmp_path), tmp_path, scheduler())
    assert torch.equal(loaded.interval_of_timestep, given.interval_of_timestep)
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([19, 20, 699, 700])
    mixed = given(x, t, **conditions(4)).sample
    torch.testing.assert_close(loaded(x, t, **conditions(4)).sample, mixed, atol=0, rtol=0)
    for place in range(4):
        alone = {name: value[place : place + 1] for name, value in conditions(4).items()}
        merged = given.merged(place)(x[place : place + 1], timestep=t[place : place + 1], **alone).sample
        torch.testing.assert_close(merged[0], mixed[place], **close)
    assert all(torch.equal(a, b) for a, b in zip(given.merged(3).parameters(), plain.parameters(), strict=True))


def test_an_adapter_of_before_is_read_as_it_was(case, tmp_path):
    plain, denoiser, conditions = case
    denoiser.save_pretrained(tmp_path)
    path = tmp_path / "noise_levels.json"
    config = json.loads(path.read_text())
    del config["boundaries"], config["ranks"]
    path.write_text(json.dumps(config | {"intervals": INTERVALS, "rank": 2}))
    loaded = load_denoiser(type(plain).from_pretrained(tmp_path), tmp_path, scheduler())
    assert torch.equal(loaded.interval_of_timestep, denoiser.interval_of_timestep)
    x, t = torch.randn(4, 3, 16, 16), timesteps_of_each_interval()
    torch.testing.assert_close(loaded(x, t, **conditions(4)).sample, denoiser(x, t, **conditions(4)).sample)


def test_a_sample_may_be_given_the_weights_of_another_interval(case):
    _, denoiser, conditions = case
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 900])
    given = denoiser(x, t, interval=torch.tensor([2, 3]), **conditions(2)).sample
    first = {name: value[:1] for name, value in conditions(2).items()}
    torch.testing.assert_close(denoiser.merged(2)(x[:1], timestep=t[:1], **first).sample[0], given[0], **close)
    torch.testing.assert_close(denoiser(x, t, **conditions(2)).sample[1], given[1], **close)
    with pytest.raises(ValueError, match="expected integers from 0 to 3"):
        denoiser(x, t, interval=torch.tensor([0, 4]), **conditions(2))


def test_each_interval_exports_as_a_plain_diffusers_network(case, tmp_path):
    plain, denoiser, conditions = case
    folders = export_merged(denoiser, tmp_path)
    assert [folder.name for folder in folders] == [f"interval-{number}" for number in range(INTERVALS)]
    x, t = torch.randn(4, 3, 16, 16), timesteps_of_each_interval()
    mixed = denoiser(x, t, **conditions(4)).sample
    for place, folder in enumerate(folders):
        alone = {name: value[place : place + 1] for name, value in conditions(4).items()}
        output = type(plain).from_pretrained(folder)(x[place][None], timestep=t[place : place + 1], **alone).sample
        torch.testing.assert_close(output[0], mixed[place], **close)


@pytest.mark.parametrize(
    ("timestep", "message"),
    [
        (torch.tensor([1.0, 2.0]), "expected integers, got torch.float32"),
        (torch.tensor([True, False]), "expected integers, got torch.bool"),
        (0.5, "expected integers, got float"),
        (None, "expected integers, got NoneType"),
        (torch.tensor([1, 2, 3]), r"one for each of 2 samples, got shape \(3,\)"),
        (torch.tensor([[1], [2]]), r"got shape \(2, 1\)"),
        (torch.tensor([5, 1000]), "expected 0 to 999, got 1000"),
        (-1, "expected 0 to 999, got -1"),
    ],
)
def test_bad_timesteps_are_refused(timestep, message):
    network, _ = unet()
    denoiser = modulate_denoiser(network, scheduler(), INTERVALS, rank=2)
    with pytest.raises(ValueError, match=message):
        denoiser(torch.zeros(2, 3, 16, 16), timestep)


def test_a_network_that_is_not_called_with_timesteps_is_refused():
    with pytest.raises(ValueError, match=r"expected one called with \(sample, timestep"):
        IntervalDenoiser(torch.nn.Conv2d(3, 3, 1), scheduler(), 2)


def test_schedulers_that_do_not_fit_are_refused(tmp_path):
    _, denoiser, _ = trained(unet, "v_prediction")
    denoiser.save_pretrained(tmp_path)
    for other, message in (
        (scheduler("epsilon"), "expected prediction type v_prediction.*got epsilon"),
        (scheduler("v_prediction", beta_schedule="squaredcos_cap_v2"), "expected the 1000 noise levels"),
        (DDPMScheduler(100, prediction_type="v_prediction"), "expected the 1000 noise levels.*got 100"),
        (FlowMatchEulerDiscreteScheduler(), "expected prediction type"),
    ):
        with pytest.raises(ValueError, match=message):
            denoiser.check_scheduler(other)
        backbone = UNet2DModel.from_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message):
            load_denoiser(backbone, tmp_path, other)
        assert not modulated_layers(backbone)
    denoiser.check_scheduler(DPMSolverMultistepScheduler.from_config(scheduler("v_prediction").config))
    euler = EulerDiscreteScheduler.from_config(scheduler("v_prediction").config)
    euler.set_timesteps(7)
    with pytest.raises(ValueError, match="use a scheduler that gives them"):
        denoiser(torch.zeros(1, 3, 16, 16), euler.timesteps[0])


def test_an_adapter_goes_onto_its_own_backbone_alone(tmp_path):
    _, denoiser, _ = trained(unet)
    denoiser.save_pretrained(tmp_path)
    torch.manual_seed(1)
    for other in (unet()[0], dit()[0]):
        with pytest.raises(ValueError, match="trained with another backbone"):
            load_denoiser(other, tmp_path, scheduler())
        assert not modulated_layers(other)


def test_a_damaged_adapter_says_so(tmp_path):
    _, denoiser, _ = trained(unet)
    save_adapter(denoiser, tmp_path)
    backbone = denoiser.backbone()
    with pytest.raises(ValueError, match="expected an adapter"):
        load_denoiser(backbone, tmp_path / "elsewhere", scheduler())
    config = json.loads((tmp_path / "noise_levels.json").read_text())
    for change, message in (
        ({"ranks": [1, 1, 1, 1]}, r"does not fit the backbone: .*expected shape"),
        ({"ranks": [2, 2, 2]}, "expected a rank for each of 4 tasks"),
        ({"boundaries": [9, 5, 70]}, "expected first timesteps that rise"),
        ({"boundaries": ["some"]}, "expected an adapter"),
    ):
        (tmp_path / "noise_levels.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            load_denoiser(backbone, tmp_path, scheduler())
    (tmp_path / "noise_levels.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="expected an adapter"):
        load_denoiser(backbone, tmp_path, scheduler())
    assert not modulated_layers(backbone)
