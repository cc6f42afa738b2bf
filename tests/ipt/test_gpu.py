"""On an NVIDIA GPU: the numbers of the CPU, bfloat16, a compiled network, NCCL, a run that goes on."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from ipt.model import InstructIPT
from ipt.network.config import preset_config
from ipt.network.modulation import task_parameters
from ipt.network.task_network import TaskNetwork
from ipt.restoring.restore import restore_image
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings, TrainingState, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

GPU = torch.device("cuda")
SETTINGS = TrainingSettings(
    steps=8, learning_rate=1e-3, bias_learning_rate=1e-2, warmup_steps=2, weight_decay=1e-4, clip_norm=1.0,
    ema_decay=0.9, task_weights=(1.0, 1.0, 1.0), bf16=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Products in float32, not tf32, and the precision that is asked for."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def new_state(config, device: torch.device, **changes) -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(InstructIPT(config).to(device), dataclasses.replace(SETTINGS, **changes))


def batches(start: int = 0):
    """Four samples of each of three tasks a step."""
    for step in range(start, 1000):
        generator = torch.Generator().manual_seed(step)
        clean, noise = torch.rand(2, 3, 4, 3, 16, 16, generator=generator)
        degraded = clean + 0.3 * noise * torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1, 1, 1)
        yield Batch(degraded.flatten(0, 1), clean.flatten(0, 1), torch.arange(3).repeat_interleave(4))


def losses(state: TrainingState, first: int = 0, **more) -> list[float]:
    told: list[float] = []
    fit(state, batches(first), on_step=lambda report: told.append(report.loss), **more)
    return told


def noisy_photograph() -> tuple[np.ndarray, np.ndarray]:
    clean = pytest.importorskip("skimage.data").astronaut()[:256, :256]
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    return clean, np.clip(clean + noise, 0, 255).round().astype(np.uint8)


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((image / 255.0 - clean / 255.0) ** 2)))


def test_steps_are_those_of_the_cpu(make_config):
    config = make_config(head_width=8)
    on_gpu, on_cpu = (losses(new_state(config, device)) for device in (GPU, torch.device("cpu")))
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=2e-3)
    assert on_cpu[-1] < on_cpu[0]


def test_it_learns_in_bf16(make_config):
    told = losses(new_state(make_config(head_width=8), GPU, bf16=True, steps=60))
    assert np.mean(told[-5:]) < 0.6 * told[0]


def test_it_goes_on_from_what_it_saved(make_config, tmp_path):
    expected = losses(new_state(make_config(), GPU, decay_steps=0))
    state = new_state(make_config(), GPU, decay_steps=0, steps=4)
    losses(state)
    state.save(tmp_path)
    later = new_state(make_config(), GPU, decay_steps=0)
    later.load(tmp_path)
    np.testing.assert_allclose(losses(later, first=4), expected[4:], rtol=1e-4)


def test_nccl_with_one_process_changes_nothing(make_config, tmp_path):
    expected = losses(new_state(make_config(), GPU))
    torch.distributed.init_process_group("nccl", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        state = new_state(make_config(), GPU)
        told = losses(state, network=DistributedDataParallel(state.model, device_ids=[0]))
    finally:
        torch.distributed.destroy_process_group()
    np.testing.assert_allclose(told, expected, rtol=1e-4)


def test_the_released_model_restores_as_on_the_cpu():
    clean, noisy = noisy_photograph()
    model = InstructIPT.from_pretrained()
    on_cpu = restore_image(model, noisy, task="denoise", precision="fp32")
    model = model.to(GPU)
    on_gpu = restore_image(model, noisy, task="denoise", precision="fp32")
    assert np.abs(on_gpu.astype(int) - on_cpu).max() <= 1
    in_bf16 = restore_image(model, noisy, task="denoise", precision="bf16")
    assert abs(psnr(in_bf16, clean) - psnr(on_cpu, clean)) <= 0.02
    assert psnr(on_cpu, clean) > psnr(noisy, clean) + 8
    tiled = restore_image(model, noisy, task="denoise", precision="fp32", tile=192)
    assert psnr(tiled, on_gpu) > 40


def test_compiled_it_makes_the_steps_that_it_makes_uncompiled():
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = TaskNetwork(preset_config("tiny", ("a", "b"), 4, ("head", "stem", "up.0"))).to(GPU)
    for parameter in (network.backbone.head.weight, *task_parameters(network)):  # untrained, they are zero
        torch.nn.init.normal_(parameter, std=0.05)
    compiled = torch.compile(network)
    index = torch.tensor([0, 0, 1, 1], device=GPU)
    for side in (32, 48):
        x = torch.rand(4, 3, side, side, device=GPU)
        expected = torch.autograd.grad(network(x, index).square().mean(), network.backbone.stem.weight)
        found = torch.autograd.grad(compiled(x, index).square().mean(), network.backbone.stem.weight)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-2)
