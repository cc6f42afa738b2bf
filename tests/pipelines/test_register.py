"""What is told of a registered model: its numbers, each with the data that it was measured on."""

from pathlib import Path

from pipelines.common.lock import data_hashes
from pipelines.common.params import load_params
from pipelines.register import datasets, shards_of, summary
from pipelines.registry.registration import Data

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
LOCK = """
schema: '2.0'
stages:
  synthesize@derain:
    cmd: python -m pipelines.synthesize --task derain
    deps:
    - {path: data/clean, hash: md5, md5: c.dir}
    - {path: degradations, hash: md5, md5: d.dir}
    outs:
    - {path: data/shards/derain, hash: md5, md5: s.dir}
  evaluate:
    cmd: python -m pipelines.evaluate
    deps:
    - {path: data/real_pairs, hash: md5, md5: r.dir}
    outs:
    - {path: metrics/evaluate.json, hash: md5, md5: e}
  nothing: {cmd: 'true'}
"""


def test_hashes_are_those_of_data_that_stages_made_or_read(tmp_path):
    lock = tmp_path / "dvc.lock"
    assert data_hashes(lock) == data_hashes(lock, "deps") == {}
    lock.write_text(LOCK)
    assert data_hashes(lock) == {"data/shards/derain": "s.dir"}
    assert data_hashes(lock, "deps") == {"data/clean": "c.dir", "data/real_pairs": "r.dir"}


def test_only_data_that_dvc_knows_is_named():
    assert datasets(PARAMS, {}, {}) == shards_of(PARAMS, {}) == {}
    hashes = {f"data/shards/{task}": f"{task}.dir" for task in ("derain", "dehaze")}
    known = datasets(PARAMS, hashes, {"data/real_pairs": "r.dir"})
    assert known == shards_of(PARAMS, hashes) | {
        name: known[name] for name in ("cbsd68_25", "rain100l", "its", "gopro")
    }
    assert known["derain"] == Data("shards/derain", "data/shards/derain", "derain.dir")
    assert known["rain100l"] == Data("real_pairs/rain100l", "data/real_pairs/rain100l_20", "r.dir")
    assert "denoise" not in known


def test_every_number_comes_with_its_data():
    score = {output: {"psnr": 20.0, "ssim": 0.5} for output in ("degraded", "trained", "compressed")}
    scores = {"tasks": {"derain": score, "overall": score}, "real_pairs": {"gopro": score}}
    sizes = {"bias_bytes_before": 4, "bias_bytes": 2, "file_bytes": 9}
    data = datasets(PARAMS, {"data/shards/derain": "s.dir"}, {"data/real_pairs": "r.dir"})
    derain, overall, gopro, rest = summary(scores, sizes | {"layers": []}, data)
    assert (derain.data, overall.data, gopro.data, rest.data) == (data["derain"], None, data["gopro"], None)
    assert set(derain.metrics) == {
        f"{measure}/derain/{output}" for measure in ("psnr", "ssim") for output in ("degraded", "trained", "compressed")
    }
    assert gopro.metrics["ssim/gopro/compressed"] == 0.5
    assert rest.metrics == sizes
