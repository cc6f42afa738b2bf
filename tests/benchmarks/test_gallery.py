"""What the gallery measures, and that its pictures stay small."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import gallery
from ipt import InstructIPT
from ipt.photos.photo import read_photo

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("sigma", [2, 8, 20])
def test_the_noise_of_a_smooth_picture_is_guessed(sigma):
    slope = np.broadcast_to(np.linspace(80, 170, 300), (200, 300))
    noisy = slope + np.random.default_rng(0).normal(0, sigma, (200, 300))
    levels = np.repeat(noisy.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    assert gallery.noise(levels) == pytest.approx(sigma, rel=0.05)


def test_what_is_told_is_psnr_where_there_is_a_clean_picture_and_the_change_where_there_is_none():
    before, after, clean = (np.full((8, 8, 3), level, np.uint8) for level in (100, 110, 115))
    assert gallery.measured(before, after, clean) == "PSNR 24.61 dB before, 34.15 after"
    assert gallery.measured(before, after) == "changed by 10.0 grey levels on the average"


def test_a_folder_becomes_a_page_that_knows_its_clean_pictures(tmp_path, monkeypatch, make_config, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("rain/degraded/a&b.png", "rain/clean/a&b.png", "c.png"):
        gallery.write_jpeg(np.full((40, 60, 3), 90, np.uint8), Path("pictures", name))
    model = InstructIPT(make_config()).eval()
    gallery.write_page(model, Path("pictures"), "derain")
    page = Path("build/gallery/index.html").read_text()
    assert page.count("<figure>") == 2
    assert '<img src="rain/degraded/a&amp;b.jpg"' in page
    assert "a&amp;b.png, derain: PSNR" in page
    assert "c.png, derain: changed by 0.0 grey levels" in capsys.readouterr().out
    assert read_photo("build/gallery/c.jpg").levels.shape == (40, 2 * 60 + gallery.GAP, 3)


def test_the_documents_pictures_are_those_of_the_script_and_small():
    pictures = list((ROOT / "docs/gallery").iterdir())
    assert {path.stem for path in pictures} == {shown.name for shown in gallery.SHOWN}
    assert sum(path.stat().st_size for path in pictures) < 1_500_000
