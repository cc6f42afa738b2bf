"""params.yaml: strict, typed, without defaults, and every message says where."""

import copy
import dataclasses
import io
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipelines.common.params import Benchmark, Builtin, Modulation, ParamsError, load_params

REAL = Path(__file__).parents[3] / "params.yaml"


def tree() -> dict:
    return copy.deepcopy(YAML(typ="safe", pure=True).load(REAL.read_text()))


@pytest.fixture
def load(tmp_path):
    """Load a tree (or text) as a file named p.yaml."""

    def write_and_load(content: dict | str | bytes):
        if isinstance(content, dict):
            stream = io.StringIO()
            YAML().dump(content, stream)
            content = stream.getvalue()
        path = tmp_path / "p.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_params(path)

    return write_and_load


def changed(place: str, value) -> dict:
    """The real file with the value at `a.b.0.c` put in place."""
    content = tree()
    *parents, last = place.split(".")
    block = content
    for key in parents:
        block = block[int(key) if isinstance(block, list) else key]
    block[int(last) if isinstance(block, list) else last] = value
    return content


def where_and_what(load, content) -> tuple[str, str]:
    with pytest.raises(ParamsError) as caught:
        load(content)
    where, _, what = str(caught.value).partition(": ")
    assert where.endswith("p.yaml") or "p.yaml." in where
    return where.partition("p.yaml")[2], what


def test_the_real_file_loads_whole():
    params = load_params(REAL)
    content = tree()
    assert [field.name for field in dataclasses.fields(params)] == list(content)
    assert list(params.tasks) == list(content["tasks"])
    for block in ("synthesize", "ingest", "model", "ray", "compress", "register", "promote"):
        assert dataclasses.asdict(getattr(params, block)) == content[block]
    assert dataclasses.asdict(params.train) == content["train"]
    assert dataclasses.asdict(params.modulation) == content["modulation"]
    assert list(params.analyze.candidates) == content["analyze"]["candidates"]


def test_layers_and_rank_may_be_pinned(load):
    content = changed("modulation.layers", ["head", "*.project"])
    content["modulation"]["rank"] = 4
    assert load(content).modulation == Modulation(4, ("head", "*.project"))


def test_a_loaded_value_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_params(REAL).train.steps = 1


@pytest.mark.parametrize(("text", "value"), [("2e-4", 2e-4), ("2.0e-4", 2e-4), ("1E-3", 1e-3), ("3", 3.0), (".5", 0.5)])
def test_numbers_are_read_as_numbers(load, text, value):
    content = re.sub(r"\n  learning_rate: \S+", f"\n  learning_rate: {text}", REAL.read_text())
    assert text in content
    rate = load(content).train.learning_rate
    assert rate == value
    assert isinstance(rate, float)


def test_optional_values_may_be_absent(load):
    params = load(changed("evaluate.benchmarks", [{"name": "a", "task": "derain", "path": "x"}]))
    assert params.evaluate.benchmarks == (Benchmark("a", "x", "derain", None),)


@pytest.mark.parametrize(
    ("place", "value", "where", "what"),
    [
        ("train.step", 1, ".train.step", "unknown key 'step'; did you mean 'steps'?"),
        ("trian", {}, ".trian", "unknown key 'trian'; did you mean 'train'?"),
        ("model.qqq", 1, ".model.qqq", "unknown key 'qqq'; known: preset"),
        ("tasks.derain.recipes", [], ".tasks.derain.recipes",
         "unknown key 'recipes'; did you mean"),
        ("train.steps", "800", ".train.steps", "expected int, got '800'"),
        ("train.steps", 1e3, ".train.steps", "expected int, got 1000.0"),
        ("train.steps", True, ".train.steps", "expected int, got True"),
        ("train.clip_norm", False, ".train.clip_norm", "expected float, got False"),
        ("train.clip_norm", "1", ".train.clip_norm", "expected float, got '1'"),
        ("train.steps", None, ".train.steps", "expected int, got None"),
        ("seed", "zero", ".seed", "expected int, got 'zero'"),
        ("train", None, ".train", "expected a block with steps, "),
        ("train", [1], ".train", "expected a block with steps, "),
        ("tasks", ["derain"], ".tasks", "expected a block of named entries, got ['derain']"),
        ("modulation.layers", "*.project", ".modulation.layers",
         "expected a list, got '*.project', or expected one of auto; got '*.project'"),
        ("modulation.layers", [], ".modulation.layers", "expected at least one name pattern, got none"),
        ("modulation.rank", 0, ".modulation.rank", "expected 1 to 1000000, got 0"),
        ("modulation.rank", "all", ".modulation.rank", "expected int, got 'all', or expected one of auto"),
        ("analyze.candidates.1", 3, ".analyze.candidates[1]", "expected str, got 3"),
        ("analyze.keep", 1.5, ".analyze.keep", "expected 0.01 to 1, got 1.5"),
        ("model.preset", "huge", ".model.preset", "expected one of tiny, small, base; got 'huge'"),
        ("train.precision", True, ".train.precision", "expected one of auto, fp32, bf16; got True"),
        ("ray.cpus_per_worker", "all", ".ray.cpus_per_worker",
         "expected int, got 'all', or expected"),
        ("evaluate.benchmarks.1.task", "derian", ".evaluate.benchmarks[1].task",
         "unknown task 'derian'; did"),
        ("evaluate.benchmarks.0.sigma", "25", ".evaluate.benchmarks[0].sigma",
         "expected float, got '25'"),
        ("tasks", {}, ".tasks", "expected at least one task, got none"),
        ("tasks.derain.share", 0, ".tasks.derain.share", "expected a number above 0, got 0"),
        ("tasks.derain.instructions", [], ".tasks.derain.instructions",
         "expected at least one sentence, got none"),
        ("prepare.tile", 0, ".prepare.tile", "expected a number above 0, got 0"),
        ("train.learning_rate", -1e-3, ".train.learning_rate",
         "expected a number above 0, got -0.001"),
        ("compress.rank", -2, ".compress.rank", "expected 1 to 1000000, got -2"),
        ("ray.workers", -1, ".ray.workers", "expected 0 to 1000000, got -1"),
        ("ray.workers", [4, 2], ".ray.workers", "expected [fewest, most] with 1 <= fewest <= most, got [4, 2]"),
        ("ray.workers", [0, 2], ".ray.workers", "expected [fewest, most] with 1 <= fewest <= most, got [0, 2]"),
        ("ray.workers", [1, 2, 3], ".ray.workers", "expected int, got [1, 2, 3], or expected a list of 2"),
        ("ray.max_failures", -2, ".ray.max_failures", "expected -1 to 1000000, got -2"),
        ("ingest.crop", 129, ".ingest.crop", "expected at most prepare.tile = 128, got 129"),
        ("promote.psnr_loss", -0.1, ".promote.psnr_loss", "expected 0 to 100, got -0.1"),
        ("promote.growth", float("nan"), ".promote.growth", "expected 1 to 1000000, got nan"),
        ("promote.floors.seen", 1.1, ".promote.floors.seen", "expected 0 to 1, got 1.1"),
        ("promote.megabytes", 0, ".promote.megabytes", "expected a number above 0, got 0.0"),
        ("promote.alias", "candidate", ".promote.alias",
         "expected another name than register.alias and 'previous', got 'candidate'"),
        ("promote.alias", "previous", ".promote.alias", "expected another name than register.alias"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_what_was_expected_and_what_came(load, place, value, where, what):
    got = where_and_what(load, changed(place, value))
    assert got[0] == where
    assert got[1].startswith(what)


@pytest.mark.parametrize("name", ["de-rain", "2", "de rain"])
def test_task_names_are_identifiers(load, name):
    content = tree()
    content["tasks"][name] = content["tasks"]["derain"]
    assert where_and_what(load, content) == (
        f".tasks.{name}",
        "expected a name of letters, digits and '_'",
    )


def test_every_key_is_needed_where_it_stands(load):
    """No defaults: without any one key of the real file the message names it."""
    small = tree()
    small["tasks"] = {"derain": small["tasks"]["derain"] | {"instructions": ["remove the rain"]}}
    small["evaluate"]["benchmarks"] = []
    load(small)
    missing = 0
    for block, values in small.items():
        content = copy.deepcopy(small)
        del content[block]
        assert where_and_what(load, content)[0] == f".{block}"
        for key in values if isinstance(values, dict) and block != "tasks" else ():
            content = copy.deepcopy(small)
            del content[block][key]
            where, what = where_and_what(load, content)
            assert where == f".{block}.{key}"
            assert what.startswith("missing; expected ")
            missing += 1
    for key in ("share", "recipe", "instructions"):
        content = copy.deepcopy(small)
        del content["tasks"]["derain"][key]
        assert where_and_what(load, content)[0] == f".tasks.derain.{key}"
    assert missing > 30


def test_a_source_is_exactly_one_kind(load):
    two = {"builtin": {"scales": [1.0]}, "dead_leaves": {"images": 1, "size": 64}}
    for value, got in (({}, "none"), (two, r"['builtin', 'dead_leaves']")):
        where, what = where_and_what(load, changed("prepare.sources.1", value))
        assert where == ".prepare.sources[1]"
        assert what == f"expected exactly one of folder, builtin, dead_leaves; got {got}"
    params = load(changed("prepare.sources", [{"builtin": {"scales": [1, 0.5]}}]))
    assert params.prepare.sources[0].builtin == Builtin((1.0, 0.5))


def test_a_key_inside_an_optional_block_is_named_once(load):
    where, what = where_and_what(load, changed("prepare.sources.1", {"folder": {"path": "a"}}))
    assert where == ".prepare.sources[1].folder.scales"
    assert what.startswith("missing")


@pytest.mark.parametrize("content", ["seed: [1", "seed: 0\nseed: 1\n", "\tseed: 0", "a: b: c"])
def test_what_is_not_yaml_is_told(load, content):
    assert where_and_what(load, content)[1].startswith("not YAML: ")


@pytest.mark.parametrize("content", ["", "[]", "3"])
def test_another_document_is_told(load, content):
    value = YAML(typ="safe", pure=True).load(content)
    expected = f"expected a block with {', '.join(tree())}; got {value!r}"
    assert where_and_what(load, content) == ("", expected)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=f"^params.yaml: no such file in {tmp_path}; run from the top"):
        load_params()
