"""params.yaml: strict, typed, without defaults, and every message says where."""

import copy
import dataclasses
import datetime
import io
import json
import pickle
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from pipelines.common.params import Builtin, Modulation, ParamsError, RealPairs, load_params
from pipelines.common.params_schema import params_schema

REAL = Path(__file__).parents[3] / "params.yaml"
SCHEMA = REAL.with_name("params.schema.json")


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


def all_told(load, content) -> list[str]:
    """Every line of the message, from the file's name on."""
    with pytest.raises(ParamsError) as caught:
        load(content)
    return [re.sub("^.*p.yaml", "", line) for line in str(caught.value).split("\n")]


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


def test_values_are_plain_dataclasses_that_workers_and_tests_can_take_apart():
    params = load_params(REAL)
    assert pickle.loads(pickle.dumps(params)) == params
    more = dataclasses.replace(params, train=dataclasses.replace(params.train, steps=7))
    assert (params.train.steps, more.train.steps, more.train.clip_norm) == (3000, 7, 1.0)
    assert type(params.tasks["denoise"].weight) is float  # a whole number in the file
    assert type(params.diffusion.channels) is tuple
    assert type(params.tasks["denoise"].recipe) is list


@pytest.mark.parametrize(("text", "value"), [("2e-4", 2e-4), ("2.0e-4", 2e-4), ("1E-3", 1e-3), ("3", 3.0), (".5", 0.5)])
def test_numbers_are_read_as_numbers(load, text, value):
    content = re.sub(r"\n  learning_rate: \S+", f"\n  learning_rate: {text}", REAL.read_text())
    assert text in content
    rate = load(content).train.learning_rate
    assert rate == value
    assert isinstance(rate, float)


def test_optional_values_may_be_absent(load):
    params = load(changed("evaluate.real_pairs", [{"name": "a", "task": "derain", "path": "x"}]))
    assert params.evaluate.real_pairs == (RealPairs("a", "x", "derain", None),)


@pytest.mark.parametrize(
    ("place", "value", "where", "what"),
    [
        ("train.step", 1, ".train.step", "unknown key 'step'; did you mean 'steps'?"),
        ("trian", {}, ".trian", "unknown key 'trian'; did you mean 'train'?"),
        ("model.qqq", 1, ".model.qqq", "unknown key 'qqq'; known: preset"),
        ("tasks.derain.recipes", [], ".tasks.derain.recipes",
         "unknown key 'recipes'; did you mean"),
        ("train.steps", "800", ".train.steps", "expected a whole number, got '800'"),
        ("train.steps", 1e3, ".train.steps", "expected a whole number, got 1000.0"),
        ("train.steps", True, ".train.steps", "expected a whole number, got True"),
        ("train.clip_norm", False, ".train.clip_norm", "expected a number, got False"),
        ("train.clip_norm", "1", ".train.clip_norm", "expected a number, got '1'"),
        ("train.steps", None, ".train.steps", "expected a whole number, got None"),
        ("seed", "zero", ".seed", "expected a whole number, got 'zero'"),
        ("train.clip_norm", float("inf"), ".train.clip_norm", "expected a finite number above 0, got inf"),
        ("train.clip_norm", float("nan"), ".train.clip_norm", "expected a finite number above 0, got nan"),
        ("evaluate.real_pairs.0.sigma", float("inf"), ".evaluate.real_pairs[0].sigma",
         "expected a finite number, got inf"),
        ("train", None, ".train", "expected a block with steps, "),
        ("train", [1], ".train", "expected a block with steps, "),
        ("tasks", ["derain"], ".tasks", "expected a block of one or more named entries, got ['derain']"),
        ("modulation.layers", "*.project", ".modulation.layers",
         "expected a list of one or more texts, or auto; got '*.project'"),
        ("modulation.layers", [], ".modulation.layers", "expected a list of one or more texts, or auto; got []"),
        ("modulation.rank", 0, ".modulation.rank", "expected a whole number from 1 to 1000000, or auto; got 0"),
        ("modulation.rank", "all", ".modulation.rank", "expected a whole number from 1 to 1000000, or auto; got 'all'"),
        ("analyze.candidates.1", 3, ".analyze.candidates[1]", "expected text, got 3"),
        ("analyze.energy", 1.5, ".analyze.energy", "expected a number from 0.01 to 1, got 1.5"),
        ("prepare.sources", [3], ".prepare.sources[0]", "expected a block with folder, builtin, dead_leaves; got 3"),
        ("tasks.derain.recipe", "Rain", ".tasks.derain.recipe", "expected a list, got 'Rain'"),
        ("diffusion.channels", 16, ".diffusion.channels", "expected a list of whole numbers, got 16"),
        ("register.model", datetime.date(2026, 1, 31), ".register.model",
         "expected a number, text, a list or a block; got datetime.date(2026, 1, 31)"),
        ("model.preset", "huge", ".model.preset", "expected one of tiny, small, base; got 'huge'"),
        ("train.precision", True, ".train.precision", "expected one of auto, fp32, bf16; got True"),
        ("ray.cpus_per_worker", "all", ".ray.cpus_per_worker",
         "expected a whole number from 1 to 1000000, or auto; got 'all'"),
        ("evaluate.real_pairs.1.task", "derian", ".evaluate.real_pairs[1].task",
         "unknown task 'derian'; did"),
        ("evaluate.real_pairs.0.sigma", "25", ".evaluate.real_pairs[0].sigma",
         "expected a number, got '25'"),
        ("tasks", {}, ".tasks", "expected a block of one or more named entries, got {}"),
        ("tasks.derain.share", 0, ".tasks.derain.share", "expected a whole number above 0, got 0"),
        ("tasks.derain.instructions", [], ".tasks.derain.instructions",
         "expected a list of one or more texts, got []"),
        ("prepare.tile", 0, ".prepare.tile", "expected a whole number above 0, got 0"),
        ("train.learning_rate", -1e-3, ".train.learning_rate",
         "expected a number above 0, got -0.001"),
        ("compress.rank", -2, ".compress.rank", "expected a whole number from 1 to 1000000, or auto; got -2"),
        ("ray.workers", -1, ".ray.workers",
         "expected a whole number from 0 to 1000000, or a list of 2 whole numbers; got -1"),
        ("ray.workers", [1, True], ".ray.workers",
         "expected a whole number from 0 to 1000000, or a list of 2 whole numbers; got [1, True]"),
        ("ray.workers", [1], ".ray.workers",
         "expected a whole number from 0 to 1000000, or a list of 2 whole numbers; got [1]"),
        ("ray.gpus_per_worker", 0.5, ".ray.gpus_per_worker",
         "expected a whole number from 0 to 1000, or auto; got 0.5"),
        ("modulation.layers", ["head", 3], ".modulation.layers",
         "expected a list of one or more texts, or auto; got ['head', 3]"),
        ("diffusion.min_snr", "all", ".diffusion.min_snr", "expected a number, or none; got 'all'"),
        ("diffusion.min_snr", float("inf"), ".diffusion.min_snr", "expected a finite number, or none; got inf"),
        ("ray.workers", [4, 2], ".ray.workers", "expected [fewest, most] with 1 <= fewest <= most, got [4, 2]"),
        ("ray.workers", [0, 2], ".ray.workers", "expected [fewest, most] with 1 <= fewest <= most, got [0, 2]"),
        ("ray.workers", [1, 2, 3], ".ray.workers",
         "expected a whole number from 0 to 1000000, or a list of 2 whole numbers; got [1, 2, 3]"),
        ("ray.max_failures", -2, ".ray.max_failures", "expected a whole number from -1 to 1000000, got -2"),
        ("ingest.crop", 129, ".ingest.crop", "expected at most prepare.tile = 128, got 129"),
        ("promote.psnr_loss", -0.1, ".promote.psnr_loss", "expected a number from 0 to 100, got -0.1"),
        ("promote.growth", float("nan"), ".promote.growth", "expected a finite number from 1 to 1000000, got nan"),
        ("promote.floors.seen", 1.1, ".promote.floors.seen", "expected a number from 0 to 1, got 1.1"),
        ("promote.megabytes", 0, ".promote.megabytes", "expected a number above 0, got 0"),
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
    small["evaluate"]["real_pairs"] = []
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


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file(load):
    content = changed("train.steps", "800")
    content["seed"] = None
    content["tasks"]["derain"]["share"] = 0
    content["ray"]["cpus"] = content["ray"].pop("cpus_per_worker")
    content["ray"]["zebra"] = 1
    content["diffusion"]["channels"] = [16, "x", 1.5]
    del content["evaluate"]["tiles"]
    content["evaluate"]["real_pairs"][1]["sigma"] = "25"
    block = ", ".join(field.name for field in dataclasses.fields(load_params(REAL).ray))
    assert all_told(load, content) == [
        ".seed: expected a whole number, got None",
        ".tasks.derain.share: expected a whole number above 0, got 0",
        ".train.steps: expected a whole number, got '800'",
        f".ray.cpus: unknown key 'cpus'; known: {block}",
        f".ray.zebra: unknown key 'zebra'; known: {block}",
        ".ray.cpus_per_worker: missing; expected a whole number from 1 to 1000000, or auto",
        ".evaluate.real_pairs[1].sigma: expected a number, got '25'",
        ".evaluate.tiles: missing; expected a whole number above 0",
        ".diffusion.channels[1]: expected a whole number, got 'x'",
        ".diffusion.channels[2]: expected a whole number, got 1.5",
    ]


def test_all_rules_between_values_are_told_at_once(load):
    content = changed("prepare.sources.0", {})
    content["tasks"]["de-rain"] = content["tasks"]["derain"]
    content["ingest"]["crop"] = 1000
    content["ray"]["workers"] = [4, 2]
    content["evaluate"]["real_pairs"][0]["task"] = "qqq"
    content["promote"]["alias"] = "candidate"
    assert [line.partition(": ")[0] for line in all_told(load, content)] == [
        ".tasks.de-rain",
        ".prepare.sources[0]",
        ".ingest.crop",
        ".ray.workers",
        ".evaluate.real_pairs[0].task",
        ".promote.alias",
    ]


@pytest.mark.parametrize(
    ("begin_with", "learn", "where", "what"),
    [
        (None, "biases", ".train.learn", "expected all where train.begin_with is null"),
        (None, ["derain"], ".train.learn", "expected all where train.begin_with is null"),
        ("instruct-ipt", ["derian"], ".train.learn[0]", "unknown task 'derian'; did you mean 'derain'?"),
        ("instruct-ipt", [], ".train.learn", "expected all, biases or at least one task"),
        (
            "instruct-ipt",
            "everything",
            ".train.learn",
            "expected one of all, biases, or a list of texts; got 'everything'",
        ),
    ],
)
def test_what_cannot_learn_is_told(load, begin_with, learn, where, what):
    content = changed("train.begin_with", begin_with)
    content["train"]["learn"] = learn
    told = where_and_what(load, content)
    assert (told[0], told[1].startswith(what)) == (where, True), told


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"rank": [8, 4]}, "rank", "expected one number, or one for each of 4 intervals and not all 0; got [8, 4]"),
        ({"rank": [0, 0, 0, 0]}, "rank", "expected one number, or one for each of 4 intervals and not all 0; got [0"),
        ({"rank": [8, 4, -1, 0]}, "rank", "expected a whole number from 0 to 1000000, or a list of whole numbers"),
        ({"learn": "biases"}, "learn", "expected all where diffusion.start is scratch or diffusion.rank is 0"),
        ({"learn": "biases", "start": "x", "rank": 0}, "learn", "expected all where diffusion.start is scratch or"),
        ({"outside": 1.0}, "outside", "expected a number from 0 to 0.9, got 1.0"),
        (
            {"outside": 0.1, "intervals": 1, "rank": 4},
            "outside",
            "expected 0 where no interval has biases beside another's",
        ),
        ({"cut": "best"}, "cut", "expected one of equal, optimal; got 'best'"),
        ({"intervals": 0}, "intervals", "expected a whole number above 0, got 0"),
    ],
)
def test_a_denoiser_that_cannot_be_is_told(load, changes, where, what):
    content = tree()
    content["diffusion"].update(changes)
    told = where_and_what(load, content)
    assert (told[0], told[1].startswith(what)) == (f".diffusion.{where}", True), told


def test_a_rank_for_each_interval_is_taken(load):
    content = changed("diffusion.rank", [16, 8, 4, 0])
    content["diffusion"].update(start="plain", learn="biases", cut="optimal", outside=0.15)
    assert load(content).diffusion.rank == (16, 8, 4, 0)


@pytest.mark.parametrize("learn", ["all", "biases", ["derain", "desnow"]])
def test_what_can_learn_is_taken(load, learn):
    content = changed("train.begin_with", "instruct-ipt")
    content["train"]["learn"] = learn
    assert load(content).train.learn == (learn if isinstance(learn, str) else tuple(learn))


def test_tasks_that_are_blind_are_tasks(load):
    assert load(changed("understand.blind", ["derain"])).understand.blind == ("derain",)
    assert all_told(load, changed("understand.blind", ["derain", "dehase"])) == [
        ".understand.blind[1]: unknown task 'dehase'; did you mean 'dehaze'?",
    ]


def test_a_misspelt_key_is_told_once(load):
    content = tree()
    content["trian"] = content.pop("train")
    content["ray"]["storrage"] = content["ray"].pop("storage")
    content["diffusion"]["bias_learning_rte"] = content["diffusion"].pop("bias_learning_rate")
    content["tasks"]["derain"]["instruction"] = content["tasks"]["derain"].pop("instructions")
    assert all_told(load, content) == [
        ".tasks.derain.instruction: unknown key 'instruction'; did you mean 'instructions'?",
        ".ray.storrage: unknown key 'storrage'; did you mean 'storage'?",
        ".diffusion.bias_learning_rte: unknown key 'bias_learning_rte'; did you mean 'bias_learning_rate'?",
        ".trian: unknown key 'trian'; did you mean 'train'?",
    ]


def test_an_unknown_key_hides_no_missing_one_that_it_is_not_meant_for(load):
    content = tree()
    content["train"]["validate_evry"] = content["train"].pop("validate_tiles")
    assert all_told(load, content) == [
        ".train.validate_evry: unknown key 'validate_evry'; did you mean 'validate_every'?",
        ".train.validate_tiles: missing; expected a whole number above 0",
    ]


def test_a_whole_block_in_the_wrong_place_is_cut_short(load):
    content = changed("seed", tree()["tasks"])
    (line,) = all_told(load, content)
    assert line.startswith(".seed: expected a whole number, got {'denoise': ")
    assert line.endswith("...")
    assert len(line) < 150


@pytest.mark.parametrize(
    "content",
    ["seed: [1", "seed: 0\nseed: 1\n", "\tseed: 0", "a: b: c", "a: 2026-13-01", b"a: \xff", "? [{a: 1}]\n: b"],
)
def test_what_is_not_yaml_is_told(load, content):
    assert where_and_what(load, content)[1].startswith("not YAML: ")


@pytest.mark.parametrize("content", ["", "[]", "3"])
def test_another_document_is_told(load, content):
    value = YAML(typ="safe", pure=True).load(content)
    expected = f"expected a block with {', '.join(tree())}; got {value!r}"
    assert where_and_what(load, content) == ("", expected)


def test_lists_too_deep_are_told(load):
    assert where_and_what(load, "[" * 5000)[1].startswith("not YAML that is read here: lists or blocks in one another")


def test_anchors_that_stand_for_billions_are_told(load):
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 12))]
    assert where_and_what(load, "\n".join(lines))[1] == "expected at most 100000 values in all, got more"


def test_an_anchor_that_is_given_twice_is_told_at_once(load):
    told = where_and_what(load, "a: &a " + "[&a " * 700)[1]  # a thousand warnings took seconds
    assert told.startswith("not YAML: \nfound duplicate anchor 'a'\nfirst occurrence   in ")
    assert told.count("duplicate anchor") == 1


def test_a_list_that_holds_itself_is_told(load):
    what = "expected an end, got a list or block that holds itself"
    assert where_and_what(load, "seed: &list [*list]") == ("", what)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=f"^params.yaml: no such file in {tmp_path}; run from the top"):
        load_params()


def test_the_schema_in_the_repository_is_that_of_the_code():
    assert SCHEMA.read_text() == params_schema(), "run `make schema`"
    assert REAL.read_text().startswith(f"# yaml-language-server: $schema={SCHEMA.name}\n")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("train.step", 1),
        ("trian", {}),
        ("train.steps", "800"),
        ("train.steps", 0),
        ("ray.workers", [1, 2, 3]),
        ("modulation.layers", []),
        ("tasks.derain.share", 0),
    ],
)
def test_an_editor_with_the_schema_sees_the_same_mistakes(place, value):
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    schema.check_schema(schema.schema)
    assert schema.is_valid(tree())
    assert not schema.is_valid(changed(place, value))


def test_the_schema_describes_every_block():
    schema = json.loads(SCHEMA.read_text())
    assert all(block["description"].endswith(".") for block in (schema, *schema["$defs"].values()))
    assert list(schema["properties"]) == list(tree())
    assert schema["$defs"]["Task"]["properties"]["weight"]["description"] == "Of its part in the loss."
