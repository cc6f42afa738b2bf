"""Shards of a task that params.yaml no longer has: removed where DVC keeps them, and nothing else is."""

from pathlib import Path

from pipelines.common.paths import SHARDS
from pipelines.train import remove_stale_shards

LOCK = """
schema: '2.0'
stages:
  synthesize@derain:
    cmd: python -m pipelines.synthesize --task derain
    outs:
    - {path: data/shards/derain, hash: md5, md5: 0.dir, size: 1, nfiles: 1}
  synthesize@polish:
    cmd: python -m pipelines.synthesize --task polish
    outs:
    - {path: data/shards/polish, hash: md5, md5: 1.dir, size: 1, nfiles: 1}
"""


def make(*names: str) -> None:
    for name in names:
        folder = SHARDS / name
        folder.mkdir(parents=True)
        (folder / "00000.parquet").write_text(name)


def left() -> set[str]:
    return {folder.name for folder in SHARDS.iterdir()}


def test_only_what_dvc_knows_is_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make("derain", "polish", "own", ".cache")
    Path("dvc.lock").write_text(LOCK)
    remove_stale_shards(SHARDS, ["derain"])
    assert left() == {"derain", "own", ".cache"}
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["data/shards/own", "data/shards/polish"]
    assert "not in dvc.lock; left there" in told[0]
    assert "DVC's cache keeps them" in told[1]


def test_without_a_lock_nothing_is_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make("polish")
    remove_stale_shards(SHARDS, ["derain"])
    assert left() == {"polish"}
