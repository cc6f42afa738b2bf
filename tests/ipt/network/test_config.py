"""A config describes itself, survives JSON and refuses contradictions."""

import dataclasses
import json

import pytest

from ipt.network.config import PRESETS, ModelConfig, preset_config

ODD = (
    {},
    {"tasks": ("solo",), "blocks": (3,), "patch": 5, "width": 9, "head_width": 3},
    {"blocks": (1, 2, 1, 1), "patch": 1, "attention_levels": 4, "expansion": 2, "layers": ("*",), "rank": 99},
)


@pytest.mark.parametrize("changes", ODD)
def test_from_dict_is_the_inverse_of_to_dict_through_json(make_config, changes):
    config = make_config(**changes)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("patch", "blocks", "multiple"),
    [(1, (1,), 1), (3, (1,), 3), (2, (1, 1, 1), 8), (1, (2,) * 4, 8)],
)
def test_size_multiple_is_the_patch_halved_at_each_level(make_config, patch, blocks, multiple):
    assert make_config(patch=patch, blocks=blocks).size_multiple == multiple


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, r"tasks: expected one or more different names, got \(\)"),
        (
            {"tasks": ("rain", "rain")},
            "tasks: expected one or more different names, got .*rain.*rain",
        ),
        ({"width": 0}, "width: expected 1 or more, got 0"),
        ({"patch": -1}, "patch: expected 1 or more, got -1"),
        ({"head_width": 0}, "head_width: expected 1 or more, got 0"),
        ({"rank": 0}, "rank: expected 1 or more, got 0"),
        ({"blocks": ()}, r"blocks: expected 1 or more at each level, got \(\)"),
        ({"blocks": (1, 0)}, r"blocks: expected 1 or more at each level, got \(1, 0\)"),
        ({"attention_levels": 3}, "attention_levels: expected 0 to 2 levels, got 3"),
        ({"width": 9}, "width: expected a multiple of head_width 4, got 9"),
    ],
)
def test_contradictions_are_refused(make_config, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_config(**changes)


def test_from_dict_names_missing_and_unknown_keys(make_config):
    values = make_config().to_dict()
    values["depth"] = values.pop("width")
    with pytest.raises(ValueError, match=r"model config: missing \['width'\], unknown \['depth'\]"):
        ModelConfig.from_dict(values)


def test_a_config_cannot_change(make_config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config().width = 16


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_keep_tasks_and_modulation_as_given(preset):
    config = preset_config(preset, ("b", "a"), 5, ("*.project",))
    assert (config.tasks, config.rank, config.layers) == (("b", "a"), 5, ("*.project",))
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(ValueError, match="preset: expected one of tiny, small, base; got 'huge'"):
        preset_config("huge", ("a",), 1, ("*",))
