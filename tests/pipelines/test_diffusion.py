"""The optional stage: its pieces, and the registered model's code."""

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ipt.diffusion.denoiser import load_denoiser
from ipt.diffusion.denoising import sample_images
from ipt.network.modulation import task_parameters
from pipelines import diffusion as stage
from pipelines.common.params import load_params
from pipelines.data.row_groups import RowGroups
from pipelines.denoisers.networks import new_denoiser, new_sampler, save_pipeline
from pipelines.diffusion import grid, held_out_crops, measure, run_name, train

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
SETTINGS = dataclasses.replace(PARAMS.diffusion, crop=16, channels=(8, 16), rank=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A denoiser with trained biases, and the folder it was saved in."""
    torch.manual_seed(0)
    denoiser = new_denoiser(SETTINGS).eval()
    with torch.no_grad():
        for factor in task_parameters(denoiser):
            factor.copy_(torch.randn_like(factor) * 0.1)
    folder = tmp_path_factory.mktemp("model")
    save_pipeline(denoiser, SETTINGS, folder)
    return denoiser, folder


@pytest.fixture
def served(saved):
    """The registered model's code with that folder, as MLflow loads it."""
    spec = importlib.util.spec_from_file_location("served", ROOT / "pipelines" / "registry" / "diffusion_pyfunc.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.DiffusionModel()
    model.load_context(SimpleNamespace(artifacts={"checkpoint": str(saved[1])}))
    return model


def test_the_folder_is_a_diffusers_pipeline_that_takes_the_adapter_in_two_lines(saved):
    from diffusers import DDIMPipeline

    denoiser, folder = saved
    pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.unet = load_denoiser(pipeline.unet, folder / "unet", pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=5, output_type="np"
    ).images
    expected = sample_images(denoiser, new_sampler(SETTINGS), 2, 16, seed=3, steps=5)
    torch.testing.assert_close(torch.from_numpy(drawn).permute(0, 3, 1, 2), expected, atol=1e-4, rtol=1e-4)


def test_the_registered_model_draws_what_was_asked_and_says_what_it_cannot(served, saved):
    table = served.predict(None, pd.DataFrame({"n": [2, 0, 1], "seed": [3, 3, -1], "steps": [5, 5, 5]}))
    assert table["row"].tolist() == [0, 0, 1, 2]
    assert table["error"].tolist()[2:] == [
        "n: expected 1 to 1024, got 0",
        "seed: expected 0 to 9223372036854775807, got -1",
    ]
    assert table["image"][2:].isna().all()
    expected = sample_images(saved[0], new_sampler(SETTINGS), 2, 16, seed=3, steps=5)
    for data, image in zip(table["image"], expected, strict=False):
        levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.array_equal(levels, np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8))


def test_more_steps_than_timesteps_are_refused(served):
    table = served.predict(None, pd.DataFrame({"n": [1], "seed": [0], "steps": [1001]}))
    assert table["error"].tolist() == ["steps: expected 1 to 1000, got 1001"]


def test_a_grid_has_eight_images_in_a_row():
    images = torch.rand(19, 3, 4, 5)
    made = grid(images)
    assert made.shape == (2 * 4, 8 * 5, 3)
    for place in (0, 7, 8, 15):
        row, column = divmod(place, 8)
        tile = made[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
        assert np.array_equal(tile, images[place].permute(1, 2, 0).numpy())


def test_levels_of_crops_become_images(monkeypatch):
    levels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8)
    asked = []
    monkeypatch.setattr(stage, "read_crops", lambda *what: asked.append(what) or {"clean": levels})
    tiles = RowGroups(["val.parquet"], [[2]])
    images = held_out_crops(SETTINGS, 5, 2, tiles)
    assert asked == [(tiles, 16, 5, 0, 2)]
    assert images.dtype == torch.float32
    assert np.array_equal(images.numpy(), levels.astype(np.float32) / 255)


def test_a_run_is_named_by_its_params_and_data(tmp_path):
    tiles = tmp_path / "train.parquet"
    tiles.write_bytes(b"one")
    name = run_name(PARAMS, tiles)
    assert name == run_name(PARAMS, tiles)
    names = {name, run_name(dataclasses.replace(PARAMS, seed=1), tiles)}
    names.add(run_name(dataclasses.replace(PARAMS, diffusion=SETTINGS), tiles))
    tiles.write_bytes(b"two")
    assert len(names | {run_name(PARAMS, tiles)}) == 4


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    params = dataclasses.replace(PARAMS, diffusion=dataclasses.replace(SETTINGS, batch=12))
    with pytest.raises(ValueError, match=r"params.yaml.diffusion.batch: expected a multiple of .* = 2 x 4, got 12"):
        train(params, tmp_path / "train.parquet", "diffusion-test")


def test_scores_are_of_each_interval_with_and_without_biases(saved, tmp_path):
    from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows

    rng = np.random.default_rng(0)
    rows = [
        {
            "image_id": str(n),
            "source": "t",
            "height": 24,
            "width": 24,
            "clean": rng.integers(0, 256, (24, 24, 3), np.uint8),
        }
        for n in range(3)
    ]
    write_rows(tmp_path / "val.parquet", rows, row_schema(CLEAN_COLUMNS, 24, 24), row_group_rows=2)
    small = dataclasses.replace(SETTINGS, samples=8, sampling_steps=2)
    scores, pictures = measure(saved[0], dataclasses.replace(PARAMS, diffusion=small), tmp_path / "val.parquet")
    assert len(scores["error"]) == len(scores["error_without_biases"]) == 4
    assert all(a != b for a, b in zip(scores["error"], scores["error_without_biases"], strict=True))
    assert scores["distance"] > scores["distance_real"] > 0
    assert {name: tuple(images.shape) for name, images in pictures.items()} == {
        "samples": (8, 3, 16, 16),
        "real": (8, 3, 16, 16),
    }
