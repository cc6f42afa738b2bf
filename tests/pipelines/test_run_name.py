"""A training run's name: another for everything that would make another model."""

import dataclasses
from pathlib import Path

import pytest

from ipt.network.checkpoint import save_model
from ipt.network.task_network import TaskNetwork
from ipt.pretrained import pretrained_network
from pipelines.common.params import ParamsError, load_params
from pipelines.train import run_name, samples_at_once
from pipelines.training.choice import Choice

CHOICE = Choice(4, ("head",))


@pytest.fixture
def params():
    real = load_params(Path(__file__).parents[2] / "params.yaml")
    return dataclasses.replace(real, tasks={name: real.tasks[name] for name in ("denoise", "derain", "deblur")})


def test_the_same_params_choice_and_shards_give_the_same_name(params, shards):
    assert run_name(params, CHOICE, shards) == run_name(params, CHOICE, shards)


@pytest.mark.parametrize(("field", "value"), [("share", 3), ("weight", 2.5)])
def test_a_changed_task_gives_another_name(params, shards, field, value):
    tasks = params.tasks | {"derain": dataclasses.replace(params.tasks["derain"], **{field: value})}
    assert run_name(dataclasses.replace(params, tasks=tasks), CHOICE, shards) != run_name(params, CHOICE, shards)


@pytest.mark.parametrize("other", [Choice(5, ("head",)), Choice(4, ("stem",))])
def test_another_choice_gives_another_name(params, shards, other):
    assert run_name(params, other, shards) != run_name(params, CHOICE, shards)


def test_what_fits_into_memory_at_once_changes_no_name_and_is_at_least_one_of_each_task(params, shards):
    def at_once(most):
        return dataclasses.replace(params, ray=dataclasses.replace(params.ray, samples_at_once=most))

    assert samples_at_once(at_once("all")) is None
    assert samples_at_once(at_once(3)) == 3
    assert run_name(at_once(3), CHOICE, shards) == run_name(at_once("all"), CHOICE, shards)
    with pytest.raises(ParamsError, match=r"ray.samples_at_once: expected all, or 3 or more, .*, got 2$"):
        samples_at_once(at_once(2))


def test_other_weights_to_begin_with_give_another_name_and_another_place_does_not(
    params, shards, make_config, fill_parameters, tmp_path
):
    def named(folder: Path) -> str:
        return run_name(replace_train(params, begin_with=str(folder)), CHOICE, shards, pretrained_network(folder))

    for folder, seed in (("first", 0), ("copy", 0), ("second", 1)):
        save_model(fill_parameters(TaskNetwork(make_config()), seed), tmp_path / folder)
    assert named(tmp_path / "first") == named(tmp_path / "copy")
    assert named(tmp_path / "first") != named(tmp_path / "second")
    assert named(tmp_path / "first") != run_name(params, CHOICE, shards)


def replace_train(params, **changes):
    return dataclasses.replace(params, train=dataclasses.replace(params.train, **changes))
