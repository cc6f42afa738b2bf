"""What a training may go on from, and what is said of all else."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from pipelines.common.params import load_params
from pipelines.denoisers.start import read_start

SETTINGS = dataclasses.replace(load_params(Path(__file__).parents[3] / "params.yaml").diffusion, crop=16)


def network(**changes):
    torch.manual_seed(0)
    sizes = {
        "sample_size": 16, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DModel(**sizes | changes)


def scheduler(kind="v_prediction"):
    return DDPMScheduler(num_train_timesteps=500, prediction_type=kind, beta_schedule="squaredcos_cap_v2")


def read(folder):
    return read_start(dataclasses.replace(SETTINGS, start=str(folder)))


@pytest.mark.parametrize(("pipeline", "noise"), [(DDPMPipeline, DDPMScheduler), (DDIMPipeline, DDIMScheduler)])
def test_a_pipeline_of_ones_own_is_read_with_its_noise(tmp_path, pipeline, noise):
    given = network()
    pipeline(given, noise.from_config(scheduler().config)).save_pretrained(tmp_path)
    read_network, read_scheduler = read(tmp_path)
    expected = given.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in read_network.state_dict().items())
    torch.testing.assert_close(read_scheduler.alphas_cumprod, scheduler().alphas_cumprod)
    assert read_scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({}, "epsilon", "expected prediction type diffusion.prediction = v_prediction, got epsilon"),
        ({"sample_size": 32}, "v_prediction", "expected size diffusion.crop = 16, got 32"),
        ({"in_channels": 1, "out_channels": 1}, "v_prediction", r"expected channels = \(3, 3\), got \(1, 1\)"),
        ({"num_class_embeds": 10}, "v_prediction", r"expected no classes = \(None, None\), got \(None, 10\)"),
    ],
)
def test_a_denoiser_of_something_else_is_refused(tmp_path, changes, kind, message):
    DDPMPipeline(network(**changes), scheduler(kind)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def without_index(folder):
    (folder / "model_index.json").unlink()


def without_json(folder):
    (folder / "unet" / "config.json").write_text("{")


def of_another_class(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["diffusers", "UNet2DConditionModel"]}))


def pickled(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def without_a_weight(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path)


def without_what_it_predicts(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "FlowMatchEulerDiscreteScheduler"}')


def with_biases(folder):
    (folder / "unet" / "noise_levels.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_index, r"model_index.json: expected the folder of a diffusers pipeline"),
        (without_json, r"unet.config.json: expected the folder of a diffusers pipeline"),
        (of_another_class, r"expected a pipeline of a UNet2DModel and a scheduler, got unet: .*UNet2DConditionModel"),
        (pickled, "cannot be loaded: .*not readable as safetensors"),
        (without_a_weight, "cannot be loaded: .*missing conv_in.weight"),
        (without_what_it_predicts, "expected a scheduler that says what is predicted, got FlowMatch"),
        (with_biases, "expected a plain denoiser, this one has biases by noise level"),
    ],
)
def test_a_folder_that_is_no_plain_pipeline_is_refused(tmp_path, change, message):
    DDPMPipeline(network(), scheduler()).save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith("params.yaml.diffusion.start: ")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none.model_index\.json: expected the folder of a diffusers pipeline"):
        read(tmp_path / "none")
