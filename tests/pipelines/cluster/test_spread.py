"""Work on the nodes: results in order, few ahead of the one that is taken; and nodes that would make something else."""

import dataclasses
from pathlib import Path

import pytest

from pipelines.cluster import spread as module
from pipelines.cluster.code import LIBRARIES, code_here, differences
from pipelines.cluster.spread import several_nodes, spread, spread_small
from pipelines.common.params import load_params

RAY = load_params(Path(__file__).parents[3] / "params.yaml").ray


def test_results_come_in_order_and_few_are_ahead(local_ray):
    given = []

    def items():
        for number in range(40):
            given.append(number)
            yield number

    for taken, result in enumerate(spread(lambda number: number**2, items())):
        assert result == taken**2
        assert len(given) <= taken + 2 + module.AHEAD * 2  # of two CPUs
    assert given == list(range(40))


def test_small_items_come_in_order_too(local_ray):
    assert list(spread_small(abs, range(-100, 0))) == list(range(100, 0, -1))
    assert list(spread_small(abs, [])) == []
    with pytest.raises(TypeError):
        list(spread_small(abs, ["text"]))


def test_what_is_raised_there_is_raised_here(local_ray):
    def fail(number):
        raise FileNotFoundError(f"{number}.parquet: not there")

    with pytest.raises(FileNotFoundError, match=r"0\.parquet: not there"):
        list(spread(fail, range(3)))


def test_one_machine_is_no_cluster_and_starts_none(monkeypatch):
    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(module, "connected", lambda: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with several_nodes(RAY) as nodes:
        assert not nodes
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(module.OWN_RAY, "10.0.0.1:6379")  # as `make repro` sets them
    with several_nodes(RAY) as nodes:
        assert not nodes


def test_a_cluster_that_is_not_there_is_told_and_done_without(monkeypatch, capsys):
    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    monkeypatch.setattr("pipelines.cluster.connection.load_params", lambda: params)
    monkeypatch.setattr("pipelines.cluster.connection.ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = dataclasses.replace(RAY, address="127.0.0.1:9")
    params = dataclasses.replace(load_params(Path(__file__).parents[3] / "params.yaml"), ray=settings)
    with several_nodes(settings) as nodes:
        assert not nodes
    assert capsys.readouterr().out.startswith("no Ray cluster at 127.0.0.1:9")


def test_other_code_and_other_libraries_are_told_by_name():
    here = code_here()
    assert set(here) == {"this code", *LIBRARIES}
    assert differences(here, dict(here)) == ""
    assert differences(here, here | {"numpy": "1.0"}) == f"numpy 1.0 in place of {here['numpy']}"
    assert differences(here, {}).startswith(f"this code None in place of {here['this code']}, albumentations None")


def test_a_changed_line_is_other_code(tmp_path, monkeypatch):
    for package in ("degradations", "ipt", "pipelines"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("one = 1\n")
    places = {name: tmp_path / name for name in ("degradations", "ipt", "pipelines")}
    found = lambda name: type("Spec", (), {"submodule_search_locations": [str(places[name])]})  # noqa: E731
    monkeypatch.setattr("pipelines.cluster.code.importlib.util.find_spec", found)
    before = code_here()["this code"]
    assert code_here()["this code"] == before
    (tmp_path / "ipt/__init__.py").write_text("one = 2\n")
    assert code_here()["this code"] != before
