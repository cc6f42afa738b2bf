"""The optional stage: its pieces, and the registered model's code."""

import dataclasses
import functools
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ipt.diffusion.denoiser import CONFIG, load_denoiser
from ipt.diffusion.denoising import sample_images
from ipt.network.modulation import modulated_layers, task_parameters
from pipelines import diffusion as stage
from pipelines.common.params import load_params
from pipelines.data.row_groups import RowGroups
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.denoisers.networks import new_denoiser, sampler, save_pipeline
from pipelines.diffusion import begun_with, clean_crops, grid, measure, plan, run_name, train

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
SETTINGS = dataclasses.replace(PARAMS.diffusion, crop=16, channels=(8, 16), rank=(4, 2, 2, 0))


def settled(**changes):
    """The real params with a small denoiser of these settings."""
    return dataclasses.replace(PARAMS, diffusion=dataclasses.replace(SETTINGS, **changes))


@functools.cache
def design():
    """Of the small denoiser."""
    return plan(settled(), Path("none"))[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A denoiser with trained biases, and the folder it was saved in."""
    torch.manual_seed(0)
    denoiser = new_denoiser(SETTINGS, design()).eval()
    with torch.no_grad():
        for factor in task_parameters(denoiser):
            factor.copy_(torch.randn_like(factor) * 0.1)
    folder = tmp_path_factory.mktemp("model")
    save_pipeline(denoiser, design(), folder)
    return denoiser, folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A denoiser without biases, and the folder it was saved in."""
    torch.manual_seed(1)
    settings = settled(rank=0).diffusion
    denoiser, folder = new_denoiser(settings, design()).eval(), tmp_path_factory.mktemp("plain")
    save_pipeline(denoiser, design(), folder)
    return denoiser, folder


@pytest.fixture
def tiles(tmp_path):
    """A file of three clean tiles."""
    rng = np.random.default_rng(0)
    rows = [
        {"image_id": str(n), "source": "t", "height": 24, "width": 24,
         "clean": rng.integers(0, 256, (24, 24, 3), np.uint8)}
        for n in range(3)
    ]  # fmt: skip
    write_rows(tmp_path / "val.parquet", rows, row_schema(CLEAN_COLUMNS, 24, 24), row_group_rows=2)
    return tmp_path / "val.parquet"


def as_served(folder):
    """The registered model's code with that folder, as MLflow loads it."""
    spec = importlib.util.spec_from_file_location("served", ROOT / "pipelines" / "registry" / "diffusion_pyfunc.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.DiffusionModel()
    model.load_context(SimpleNamespace(artifacts={"checkpoint": str(folder)}))
    return model


@pytest.fixture
def served(saved):
    return as_served(saved[1])


def test_the_folder_is_a_diffusers_pipeline_that_takes_the_adapter_in_two_lines(saved):
    from diffusers import DDIMPipeline

    denoiser, folder = saved
    pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.unet = load_denoiser(pipeline.unet, folder / "unet", pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(3), num_inference_steps=5, output_type="np"
    ).images
    expected = sample_images(denoiser, sampler(design()), 2, 16, seed=3, steps=5)
    torch.testing.assert_close(torch.from_numpy(drawn).permute(0, 3, 1, 2), expected, atol=1e-4, rtol=1e-4)


def test_the_registered_model_draws_what_was_asked_and_says_what_it_cannot(served, saved):
    table = served.predict(None, pd.DataFrame({"n": [2, 0, 1], "seed": [3, 3, -1], "steps": [5, 5, 5]}))
    assert table["row"].tolist() == [0, 0, 1, 2]
    assert table["error"].tolist()[2:] == [
        "n: expected 1 to 1024, got 0",
        "seed: expected 0 to 9223372036854775807, got -1",
    ]
    assert table["image"][2:].isna().all()
    expected = sample_images(saved[0], sampler(design()), 2, 16, seed=3, steps=5)
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
    images = clean_crops(SETTINGS, 5, 2, tiles)
    assert asked == [(tiles, 16, 5, 0, 2)]
    assert images.dtype == torch.float32
    assert np.array_equal(images.numpy(), levels.astype(np.float32) / 255)


def test_a_run_is_named_by_its_params_and_data(tmp_path):
    tiles = tmp_path / "train.parquet"
    tiles.write_bytes(b"one")
    name = run_name(PARAMS, tiles, None)
    assert name == run_name(PARAMS, tiles, None)
    names = {name, run_name(dataclasses.replace(PARAMS, seed=1), tiles, None)}
    names.add(run_name(dataclasses.replace(PARAMS, diffusion=SETTINGS), tiles, None))
    given = torch.nn.Linear(2, 2)
    names.add(run_name(PARAMS, tiles, given))
    assert run_name(PARAMS, tiles, given) in names
    torch.nn.init.zeros_(given.weight)
    names.add(run_name(PARAMS, tiles, given))
    tiles.write_bytes(b"two")
    assert len(names | {run_name(PARAMS, tiles, None)}) == 6


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"params.yaml.diffusion.batch: expected a multiple of .* = 2 x 4, got 12"):
        train(settled(batch=12), tmp_path / "train.parquet", "diffusion-test", design(), None)


def test_scores_are_of_each_interval_with_and_without_biases(saved, tiles):
    scores, pictures = measure(saved[0], design(), settled(samples=8, sampling_steps=2), tiles)
    assert len(scores["error"]) == len(scores["error_without_biases"]) == 4
    same = [a == b for a, b in zip(scores["error"], scores["error_without_biases"], strict=True)]
    assert same == [False, False, False, True]  # the last has rank 0
    assert len(scores["boundaries"]) == 3
    assert scores["distance"] > scores["distance_real"] > 0
    assert {name: tuple(images.shape) for name, images in pictures.items()} == {
        "samples": (8, 3, 16, 16),
        "real": (8, 3, 16, 16),
    }


def test_a_denoiser_of_rank_0_is_a_plain_pipeline(plain):
    denoiser, folder = plain
    assert not modulated_layers(denoiser)
    assert not (folder / "unet" / CONFIG).exists()
    table = as_served(folder).predict(None, pd.DataFrame({"n": [2], "seed": [3], "steps": [5]}))
    assert table["error"].isna().all()
    expected = sample_images(denoiser, sampler(design()), 2, 16, seed=3, steps=5)
    first = cv2.imdecode(np.frombuffer(table["image"][0], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(first, np.rint(expected[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))


@pytest.mark.parametrize("learn", ["all", "biases"])
def test_it_goes_on_from_a_plain_pipeline(plain, learn):
    denoiser, folder = plain
    settings = settled(start=str(folder), learn=learn).diffusion
    made, given = plan(settled(start=str(folder), learn=learn), Path("none"))
    assert (made.network, made.boundaries) == (design().network, design().boundaries)
    begun = begun_with(given, settings, made)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 900])
    torch.testing.assert_close(begun(x, t).sample, denoiser.denoiser(x, t).sample)
    learning = {id(p) for p in begun.parameters() if p.requires_grad}
    assert learning == {id(p) for p in (begun.parameters() if learn == "all" else task_parameters(begun))}


def test_an_optimal_cut_looks_at_the_training_tiles(tiles, monkeypatch):
    monkeypatch.setattr(stage, "TO_CUT_BY", 20)
    made, _ = plan(settled(cut="optimal", intervals=3, rank=2), tiles)
    assert len(made.boundaries) == 2
    assert made.boundaries != plan(settled(intervals=3, rank=2), tiles)[0].boundaries
    assert new_denoiser(settled(rank=2).diffusion, made).intervals == 3


@pytest.mark.parametrize("cut", ["equal", "optimal"])
def test_more_intervals_than_timesteps_are_refused(tiles, cut, monkeypatch):
    monkeypatch.setattr(stage, "TO_CUT_BY", 20)
    with pytest.raises(ValueError, match=r"params.yaml.diffusion.intervals: .*expected 1 to 1000 intervals.*got 1001"):
        plan(settled(cut=cut, intervals=1001, rank=2), tiles)


def test_the_stage_does_not_begin_with_what_it_makes():
    with pytest.raises(ValueError, match=r"diffusion\.start: expected another folder than models/diffusion"):
        plan(settled(start="models/diffusion"), Path("none"))
