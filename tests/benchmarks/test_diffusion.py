"""The diffusion benchmark's rows start alike, meet the same batches, are kept, and are told as they are."""

import itertools
import json

import numpy as np
import pytest
import torch

from benchmarks import diffusion
from benchmarks.diffusion import ROWS, batches, build, kept_or_measured, size, table
from ipt.network.modulation import modulated_layers
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows

LAYERS = ["proj_out_*", "transformer_blocks.0.ff.net.2"]


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Tiles and places of this test's own, and little to measure on."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        rows = [
            {"image_id": str(n), "source": "t", "height": 40, "width": 40,
             "clean": rng.integers(0, 256, (40, 40, 3), np.uint8)}
            for n in range(4)
        ]  # fmt: skip
        write_rows(tmp_path / f"{split}.parquet", rows, row_schema(CLEAN_COLUMNS, 40, 40), row_group_rows=4)
    for name, value in {
        "CLEAN": tmp_path,
        "RESULTS": tmp_path / "kept",
        "HELD_OUT": 4,
        "SAMPLES": 4,
        "BATCH": 4,
    }.items():
        monkeypatch.setattr(diffusion, name, value)
    monkeypatch.setattr(diffusion, "SAMPLING_STEPS", 2)
    monkeypatch.setattr(diffusion, "sensitive_layers", lambda network, clean: (["proj_out_1"], {"proj_out_1": [1.0]}))
    return tmp_path


def test_rows_have_the_backbone_of_their_seed_and_the_biases_they_name():
    plain = build("plain", 0, LAYERS)
    for row in ROWS:
        network = build(row, 0, LAYERS)
        if row.startswith("wider"):
            assert size(network) >= size(build("rank 8", 0, LAYERS)) > size(plain)
            continue
        layers = modulated_layers(network)
        assert len(layers) == {"plain": 0, "all layers": 39}.get(row, 3)
        ranks = {layer.task_up.shape[-1] for layer in layers.values()}
        assert not layers or max(ranks) == (4 if row == "all layers" else int(row.split()[1]))
        weights = (network.denoiser if layers else network).pos_embed.proj.weight
        assert torch.equal(weights, plain.pos_embed.proj.weight)


def test_batches_are_the_same_for_all_rows_and_hold_every_interval():
    tiles = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    first, again = (list(itertools.islice(batches(tiles, 7), 2)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    clean, timesteps, noise = first[0]
    assert clean.shape == noise.shape == (32, 3, 32, 32)
    assert timesteps[:8].max() < timesteps[-8:].min()
    assert not torch.equal(clean, first[1][0])


def test_a_row_is_measured_once_and_kept(few, monkeypatch):
    calls = []
    real = diffusion.measure
    monkeypatch.setattr(diffusion, "measure", lambda *what: calls.append(what) or real(*what))
    first = kept_or_measured("all layers", 0, 2)
    assert kept_or_measured("all layers", 0, 2) == json.loads(json.dumps(first))
    assert len(calls) == 1
    kept_or_measured("rank 2", 0, 2)
    assert calls[1][3] == ["proj_out_1"]  # the layers chosen by the first row
    assert len(first["errors"]) == 4
    assert first["floor"] > 0


def test_the_table_says_how_often_a_row_is_below_plain():
    def result(row, seed, errors, distance=0.25):
        return {"row": row, "seed": seed, "parameters": 1500, "errors": errors, "distance": distance, "floor": 0.125}

    results = [
        result("rank 2", 0, [0.5, 0.25]), result("rank 2", 1, [0.75, 0.5]), result("plain", 0, [1.0, 0.125]),
        result("plain", 1, [1.0, 1.0]), result("wider", 0, [0.5, 0.5]), result("wider", 1, [0.5, 0.5]),
    ]  # fmt: skip
    lines = table(results, {"layers": ["a", "b"], "of": 9}).splitlines()
    assert lines[2].startswith(
        "| plain (no biases) | 2 k | 1.0000 ± 0.0000 | 0.5625 ± 0.4375 | 0.7812 ± 0.2188 |  |  |"
    )
    assert (
        "| 0.6250 ± 0.1250 | 0.3750 ± 0.1250 | 0.5000 ± 0.1250 | 3 of 4 | 1 of 2 seeds | 0.2500 ± 0.0000 |" in lines[3]
    )
    assert lines[-2] == "Real against real: 0.1250."
    assert lines[-1] == "Sensitive layers, 2 of 9: `a`, `b`."
