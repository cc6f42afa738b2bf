"""Labelled tiles for the estimator: their label, their range, their variety; drawings of all kinds."""

import numpy as np
import pytest

from ipt.pixels import to_levels
from pipelines.data import drawings
from pipelines.data.drawings import draw, gradient, plain, shapes, text
from pipelines.data.metrics import psnr
from pipelines.understanding import labelled
from pipelines.understanding.labelled import Damage, labelled_tile

NOISE = [{"GaussianNoise": {"sigma": [40, 50]}}]
FOG = [{"Haze": {"beta": [0.3, 0.3], "airlight": [1, 1], "tint": [0, 0], "near": [6, 6], "span": [0, 1]}}]
WHISPER = [{"GaussianNoise": {"sigma": [0.1, 0.1]}}]


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(0)
    return to_levels(np.kron(rng.random((16, 20, 3)), np.ones((8, 8, 1))).astype(np.float32))


def tiles(clean, recipes, count=80, side=32, visible=38.0):
    rng = np.random.default_rng(0)
    return [labelled_tile(clean, side, Damage(recipes, visible), rng) for _ in range(count)]


@pytest.mark.parametrize("side", [16, 64, 128, 200])  # 200: larger than the clean tile
def test_a_tile_is_a_square_in_range(clean, side):
    for tile, label in tiles(clean, [NOISE, FOG], 12, side):
        assert tile.shape == (side, side, 3)
        assert tile.dtype == np.float32
        assert tile.min() >= 0
        assert tile.max() <= 1
        assert label in (0, 1, 2)


def test_labels_are_of_the_damage(clean):
    drawn = tiles(clean, [NOISE, FOG], 300)
    rough = {label: [np.abs(np.diff(t, axis=0)).mean() for t, own in drawn if own == label] for label in (0, 1, 2)}
    assert np.median(rough[0]) > 2 * np.median(rough[2]) > 2 * np.median(rough[1])
    shares = [len(rough[label]) / 300 for label in (0, 1, 2)]
    assert 0.25 < shares[0] < 0.45
    assert 0.25 < shares[1] < 0.45
    assert 0.2 < shares[2] < 0.4


def test_damage_that_cannot_be_seen_counts_as_clean(clean):
    assert {label for _, label in tiles(clean, [WHISPER])} == {1}
    assert {label for _, label in tiles(clean, [WHISPER], visible=99.0)} == {0, 1}


def test_tiles_are_a_function_of_the_generator(clean):
    first, second = tiles(clean, [NOISE], 10), tiles(clean, [NOISE], 10)
    assert all(np.array_equal(a, b) and x == y for (a, x), (b, y) in zip(first, second, strict=True))
    assert len({tile.tobytes() for tile, _ in first}) == 10


def test_some_are_stored_as_jpeg_and_all_have_8_bits(clean, monkeypatch):
    rng = np.random.default_rng(0)
    image = np.kron(rng.random((4, 4, 3)), np.ones((8, 8, 1))).astype(np.float32)
    monkeypatch.setattr(labelled, "STORED", 1.0)
    stored = labelled._stored(image, rng)
    assert 20 < psnr(stored, image) < 50
    monkeypatch.setattr(labelled, "STORED", 0.0)
    assert np.array_equal(labelled._stored(image, rng), np.rint(image * 255).astype(np.float32) / 255)


@pytest.mark.parametrize("kind", [plain, gradient, text, shapes])
@pytest.mark.parametrize("side", [8, 64, 131])
def test_drawings_are_squares_of_levels(kind, side):
    rng = np.random.default_rng(0)
    for _ in range(8):
        drawing = kind(rng, side)
        assert drawing.shape == (side, side, 3)
        assert drawing.dtype == np.uint8


def test_drawings_are_what_they_say():
    rng = np.random.default_rng(0)
    assert all(np.ptp(plain(rng, 16), axis=(0, 1)).max() == 0 for _ in range(5))
    for _ in range(5):
        steps = gradient(rng, 16).astype(int)
        assert min(np.ptp(steps, axis=0).max(), np.ptp(steps, axis=1).max()) == 0
    assert max(np.abs(np.diff(text(rng, 64).astype(int), axis=1)).max() for _ in range(5)) > 100
    assert all(len(np.unique(shapes(rng, 64).reshape(-1, 3), axis=0)) > 1 for _ in range(5))


def test_all_kinds_are_drawn(monkeypatch):
    seen = set()
    for name in ("plain", "gradient", "text", "shapes"):
        monkeypatch.setattr(drawings, name, lambda rng, side, name=name: seen.add(name))
    rng = np.random.default_rng(0)
    for _ in range(40):
        draw(rng, 8)
    assert seen == {"plain", "gradient", "text", "shapes"}
