"""What others are measured with: rows that are right, a failure that costs one row, and the peers written here."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional

from benchmarks import peers
from benchmarks.dark_channel import dehaze, guided_filter
from benchmarks.ffdnet import FFDNet
from benchmarks.peer_methods import Method, methods, opencv_means
from benchmarks.peers import SETS, WARM_UP, continued, every_kth, measure, score, table
from degradations.haze import haze
from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from pipelines.common.params import RealPairs
from pipelines.data.metrics import psnr

UNTOUCHED = Method("untouched", "", lambda: [lambda image: image])


@pytest.fixture(scope="module")
def photograph():
    """160 x 160 pixels, float32."""
    return cv2.resize(data.astronaut(), (160, 160), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


@pytest.fixture
def pictures(photograph):
    """Two pairs: squares with noise beside clean ones; the second is twice as large."""
    rng = np.random.default_rng(0)
    cleans = [photograph[:40, :40], photograph[40:80, 40:120]]
    return [(np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32), clean) for clean in cleans]


def test_the_dark_channel_prior_takes_haze_away(photograph):
    depth = np.linspace(8, 1, 160, dtype=np.float32)[:, None].repeat(160, 1)
    hazy = haze(photograph, np.random.default_rng(0), beta=0.2, airlight=0.9, depth=depth)
    restored = dehaze(hazy)
    assert (restored.shape, restored.dtype) == (hazy.shape, hazy.dtype)
    assert 0 <= restored.min() <= restored.max() <= 1
    assert psnr(restored, photograph) > psnr(hazy, photograph) + 2
    for level in (0, 1):  # a picture of one colour, also the darkest, gives numbers
        assert np.isfinite(dehaze(np.full((40, 40, 3), level, np.float32))).all()


def test_the_guided_filter_keeps_an_edge_of_its_guide_and_smooths_what_the_guide_lacks():
    step = np.zeros((200, 200), np.float32)
    step[:, 100:] = 1
    noisy = step + np.random.default_rng(0).normal(0, 0.1, step.shape).astype(np.float32)
    filtered = guided_filter(step, noisy)
    assert np.abs(filtered - step).max() < 0.05
    assert np.abs(guided_filter(np.zeros_like(step), noisy) - step).max() > 0.3  # without the edge in the guide


def test_a_method_that_returns_its_input_gains_nothing_and_the_numbers_are_means(pictures, tmp_path):
    records = measure([UNTOUCHED], pictures, tmp_path / "set.json", {}, "now", False)
    scores = [psnr(*pair) for pair in pictures]
    row = table(records, "now").splitlines()[2]
    assert row.startswith(f"| untouched |  | {np.mean(scores):.2f} | ")
    assert "| +0.00 | +0.00 | 0 of 2 | 0.00 |" in row
    records["untouched"]["pictures"] = [
        {"psnr": 20.0, "ssim": 0.5, "gain": 3.0, "seconds": 2.0, "megapixels": 0.5},
        {"psnr": 30.0, "ssim": 0.7, "gain": -1.0, "seconds": 1.0, "megapixels": 0.25},
    ]
    assert "| 25.00 | 0.600 | +1.00 | -1.00 | 1 of 2 | 4.00 |" in table(records, "now")


def test_opencv_gets_its_own_order_of_channels(photograph):
    red = photograph[:40, :40] * np.float32([1, 0.1, 0.1])
    restored = opencv_means(red, 3)
    assert psnr(restored, red) > 30  # nothing but a little smoothing, in the same order
    swapped = cv2.fastNlMeansDenoisingColored((red * 255).round().astype(np.uint8), None, 3, 3, 7, 21)
    assert not np.array_equal(restored, swapped)


def test_an_oracle_takes_the_best_of_its_variants_for_each_picture(pictures):
    degraded, clean = pictures[0]
    scored = score([lambda image: image, lambda image: clean, lambda image: 1 - clean], degraded, clean)
    assert scored["psnr"] == 100
    assert scored["gain"] == pytest.approx(100 - psnr(degraded, clean))


def test_a_method_that_fails_is_told_and_the_others_go_on(pictures, tmp_path, capsys):
    def absent():
        import no_such_package  # noqa: F401

    def half_way(image):
        if image.shape[1] == 80:
            raise RuntimeError("too\nwide")
        return image

    rows = [
        Method("absent", "", absent),
        Method("half way", "", lambda: [half_way]),
        Method("numbers", "", lambda: [lambda image: image * np.nan]),
        Method("small", "", lambda: [lambda image: image[1:]]),
        UNTOUCHED,
    ]
    records = measure(rows, pictures, tmp_path / "set.json", {}, "now", False)
    text = table(records, "now")
    assert "| absent |  | left out: ModuleNotFoundError: No module named 'no_such_package' |" in text
    assert "| half way |  | failed: RuntimeError: too wide |" in text
    assert text.count("failed: ValueError: expected finite (40, 40, 3)") == 2
    assert "| +0.00 | +0.00 | 0 of 2 |" in text
    assert capsys.readouterr().out.count("peers: set: ") == 4


def test_a_stopped_run_goes_on_with_the_next_picture(pictures, tmp_path):
    path, calls = tmp_path / "set.json", []

    def counted(image):
        calls.append(image.shape[1])
        return image

    def stop(image):
        if image.shape[1] == 80:
            raise KeyboardInterrupt
        return image

    first = Method("counted", "", lambda: [counted])
    with pytest.raises(KeyboardInterrupt):
        measure([first, Method("stops", "", lambda: [stop])], pictures, path, {"seed": 0}, "first", False)
    calls.clear()
    records = measure([first], pictures, path, {"seed": 0}, "second", True)
    assert calls == [WARM_UP, 80]  # a corner and the second picture: the first is not done again
    assert records["counted"]["runs"] == ["first", "second"]
    assert "timed in another run, begun: counted (first, second)" in table(records, "second")
    calls.clear()
    measure([first], pictures, path, {"seed": 0}, "third", True)
    assert calls == []
    measure([first], pictures, path, {"seed": 1}, "fourth", True)  # other pictures: all anew
    assert calls[-2:] == [40, 80]
    assert continued(Method("counted", "", list, made_of="another model"), json.loads(path.read_text())["methods"]) == {
        "told": "", "made_of": "another model", "runs": [], "pictures": []
    }  # fmt: skip


@pytest.mark.parametrize("pairs", list(SETS.values())[2:], ids=lambda pairs: pairs.name)
def test_every_damage_has_peers_that_run_on_any_machine(pairs, make_config, photograph):
    model = InstructIPT(make_config(tasks=("denoise", "derain", "dehaze", "deblur"))).eval()
    rows = methods(pairs, model, "weights", ["normal", "best"], [])
    assert rows[0].name == "degraded"
    assert [row.made_of for row in rows[-2:]] == ["weights"] * 2
    assert len(rows) > 3 or pairs.task == "dehaze"
    hazy = photograph[:30, :35] * 0.5 + 0.4
    for row in rows:
        if "wavelets" not in row.name and row.name != "BM3D":  # packages that only the benchmark installs
            assert score(row.build(), hazy, photograph[:30, :35])["psnr"] > 5


def test_ffdnet_reads_columns_first_weights_and_takes_odd_sizes(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 13, 3, 3), (12, 5, 3, 3))
    layers = [
        (torch.randn(shape, generator=generator) / 9, torch.rand(shape[0], generator=generator)) for shape in shapes
    ]
    monkeypatch.setattr("benchmarks.ffdnet.read_layers", lambda path: layers)
    image = np.random.default_rng(0).random((6, 10, 3), np.float32)
    restored = FFDNet(tmp_path, 51)(image)
    # The same by hand on the upright image: sub-images numbered down the columns, kernels turned upright.
    parts = [image[row::2, column::2, c] for c in range(3) for column in (0, 1) for row in (0, 1)]
    x = torch.from_numpy(np.stack([*parts, np.full((3, 5), 0.2, np.float32)]))[None]
    x = functional.conv2d(x, layers[0][0].transpose(2, 3), layers[0][1], padding=1).relu()
    x = functional.conv2d(x, layers[1][0].transpose(2, 3), layers[1][1], padding=1).clamp(0, 1)[0].numpy()
    expected = np.empty_like(image)
    for place, part in enumerate(x):
        expected[place % 2 :: 2, place % 4 // 2 :: 2, place // 4] = part
    np.testing.assert_allclose(restored, expected, atol=1e-5)
    assert FFDNet(tmp_path, 51)(image[:5, :7]).shape == (5, 7, 3)


def test_a_limit_takes_pictures_from_all_of_the_set(tmp_path):
    (tmp_path / "clean").mkdir()
    for number in range(7):
        cv2.imwrite(str(tmp_path / "clean" / f"{number}.png"), np.full((12, 12, 3), 10 * number, np.uint8))
    pairs = RealPairs("some", str(tmp_path), "denoise", 15)
    chosen = [round(clean[0, 0, 0] * 25.5) for _, clean in every_kth(pairs, 0, 3)]
    assert chosen == [0, 2, 4]
    assert len(every_kth(pairs, 0, None)) == 7


def test_the_command_writes_the_tables_and_says_what_is_not_there(
    tmp_path, monkeypatch, capsys, make_config, photograph
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peers, "on_cpus", lambda count: None)
    monkeypatch.setattr(peers, "load_params", lambda: type("Params", (), {"seed": 0}))
    save_model(InstructIPT(make_config(tasks=("derain",))), tmp_path / "model")
    for folder in ("degraded", "clean"):
        (tmp_path / "data" / "rain100l_20" / folder).mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / "data" / "rain100l_20" / folder / "1.png"), (photograph[:40, :40] * 255).astype("uint8")
        )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(f"above\n{peers.BEGIN}<!-- end -->\nbelow\n")
    monkeypatch.setattr(sys, "argv", ["peers", "data", "--model", "model"])
    peers.main()
    written = (tmp_path / "docs" / "results.md").read_text()
    assert written.startswith("above\n")
    assert written.endswith("below\n")
    assert "### Rain100L, rain\n\nPictures: 1, megapixels: 0.0.\n\n| | told |" in written
    assert "| Instruct-IPT | the task, derain | " in written
    assert "### GoPro, blur\n\nNot measured" in written
    assert "gopro skipped: data/gopro_10/clean is not there" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["peers", "model"])
    with pytest.raises(SystemExit, match=r"model: expected folders cbsd68, gopro_10, its_4, rain100l_20"):
        peers.main()
