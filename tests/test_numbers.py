"""The numbers of the documents' tables are those that the stages wrote (docs/numbers.md says which)."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = {  # how the documents call the real pairs of params.yaml
    "CBSD68, sigma 15": "cbsd68_15",
    "CBSD68, sigma 25": "cbsd68_25",
    "CBSD68, sigma 50": "cbsd68_50",
    "Rain100L": "rain100l",
    "RESIDE indoor": "its",
    "GoPro": "gopro",
}


@pytest.fixture(autouse=True)
def _of_the_committed_run():
    """After `make repro` the numbers here are those of a run of one's own, which no document is about."""
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "metrics"], cwd=ROOT, check=False).returncode
    if changed == 1:
        pytest.skip("metrics/ is of another run than the committed one")


def read(name):
    return json.loads((ROOT / "metrics" / f"{name}.json").read_text())


def rows(document, heading):
    """The cells of each row of the table whose first line holds `heading`, by the first cell."""
    text = (ROOT / document).read_text()
    found = re.search(rf"(?m)^\|[^\n]*{re.escape(heading)}[^\n]*\n\|[ |:-]+\n((?:\|.*\n)+)", text)
    assert found, f"{document}: no table with {heading!r}"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    return {first: rest for first, *rest in cells}


def both(score):
    """PSNR and SSIM as the documents write them."""
    return f"{score['psnr']:.2f} / {score['ssim']:.3f}"


def same(cell, score):
    """Whether a cell says that; of a half the last digit may be either."""
    return [float(part) for part in cell.split(" / ")] == [
        pytest.approx(score["psnr"], abs=0.0051),
        pytest.approx(score["ssim"], abs=0.00051),
    ]


def percent(text):
    return [float(number) for number in re.findall(r"[\d.]+(?=(?:, [\d.]+)* %)", text)]


def test_the_default_runs_scores():
    scores = read("evaluate")
    tiles = rows("README.md", "held-out tiles (64 each")
    assert set(tiles) == set(scores["tasks"]) - {"overall"}
    for task, cells in tiles.items():
        assert same(cells[0], scores["tasks"][task]["degraded"]), task
        assert same(cells[1], scores["tasks"][task]["compressed"]), task
    pairs = rows("README.md", "real pairs, never trained on")
    assert {NAMES[name] for name in pairs} == set(scores["real_pairs"])
    for name, (images, degraded, restored) in pairs.items():
        score = scores["real_pairs"][NAMES[name]]
        assert int(images) == score["images"], name
        assert same(degraded, score["degraded"]), name
        assert same(restored, score["compressed"]), name


def test_the_headline_is_of_the_same_run():
    scores, headline = read("evaluate"), read("headline")
    for kind in ("tasks", "real_pairs"):
        for name, brief in headline[kind].items():
            assert brief["degraded"] == scores[kind][name]["degraded"]["psnr"], name
            assert brief["restored"] == scores[kind][name]["compressed"]["psnr"], name
    assert headline["bytes"] == read("compress")["file_bytes"]


def test_the_released_models_scores_are_its_cards():
    card = rows("ipt/released/README.md", "damage seen")
    default = rows("README.md", "real pairs, never trained on")
    table = rows("README.md", "a default run (below)")
    assert {NAMES[name] for name in table} == set(card) & set(NAMES.values())
    for name, (images, degraded, restored, beside) in table.items():
        assert [images, degraded, restored] == card[NAMES[name]][:3], name
        assert beside == (default[name][2] if name in default else ""), name
    text = (ROOT / "README.md").read_text()
    megabytes = re.search(r"Checkpoint: ([\d.]+) MB", (ROOT / "ipt/released/README.md").read_text())[1]
    assert f"The size of the weights: {float(megabytes):.1f} MB" in text


def test_sizes():
    compressed, text = read("compress"), " ".join((ROOT / "README.md").read_text().split())
    kilobytes, share, numbers = re.search(
        r"(\d+) kB of biases for five tasks, (\d+) % of the backbone's ([\d,]+) numbers", text
    ).groups()
    assert int(kilobytes) == round(compressed["bias_bytes"] / 1000)
    assert int(share) == round(100 * compressed["bias_parameters"] / compressed["backbone_parameters"])
    assert int(numbers.replace(",", "")) == round(compressed["backbone_parameters"], -3)
    rest = compressed["file_bytes"] - 2 * compressed["backbone_parameters"] - compressed["bias_bytes"]
    assert f"and {rest / 1e6:.1f} MB that understand words and pictures" in text


def test_how_often_words_and_pictures_are_understood():
    lists, scores = read("understand")["instructions"], read("evaluate")
    for name, cells in rows("docs/restore.md", "instructions | one task").items():
        which = name.split()[0]
        for kind, cell in zip(("one", "two", "unclear"), cells, strict=True):
            assert (cell == "") == (kind not in lists[which]), (which, kind)
            assert not cell or percent(cell) == [round(100 * lists[which][kind], 1)], (which, kind)
    table = rows("docs/restore.md", "| damage seen |")
    tiles, pairs = (next(cells for name, cells in table.items() if name.startswith(w)) for w in ("held-out", "CBSD68"))
    seen = [scores["tasks"][task]["seen"] for task in ("denoise", "derain", "desnow", "dehaze", "deblur")]
    real = [scores["real_pairs"][name]["seen"] for name in ("cbsd68_25", "rain100l", "its", "gopro")]
    assert percent(tiles[0]) == [round(100 * each["degraded"]) for each in seen]
    assert [float(n) for n in re.findall(r"\d+", tiles[1])] == [
        round(100 * choose(each["clean"] for each in seen)) for choose in (min, max)
    ]
    assert percent(pairs[0]) == [round(100 * each["degraded"]) for each in real]
    assert percent(pairs[1]) == [round(100 * each["clean"]) for each in real]


def test_layers_and_rank():
    choice, words = read("modulation"), {7: "seven", 9: "nine", 12: "twelve"}
    text = " ".join((ROOT / "docs/method.md").read_text().split())
    said = f"The default run of today chooses {words[len(choice['layers'])]} layers and rank {choice['rank']}"
    assert said in text
    assert choice["rank"] == read("analyze")["rank"] == read("compress")["rank"]


def test_the_ends_of_the_trainings():
    text = " ".join((ROOT / "docs/release.md").read_text().split())
    for name, pattern in (
        ("fresh_damage", r"([\d,]+) steps of 80 crops"),
        ("release_curve", r"([\d,]+) steps in 3.3 h"),
    ):
        with (ROOT / f"docs/{name}.csv").open() as file:
            last = {row.get("run"): row for row in csv.DictReader(file)}  # of each run
        told = [int(steps.replace(",", "")) for steps in re.findall(pattern, text)]
        for steps, row in zip(told, last.values(), strict=True):
            assert 0.94 * steps <= float(row["step"]) <= steps, name  # the log's last row is before the end
