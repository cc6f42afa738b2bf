"""The choice of layers and rank between `analyze` and the stages after it."""

from pathlib import Path

import pytest

from ipt.training.fit import TrainingSettings
from pipelines.common.params import load_params
from pipelines.training.choice import Choice, model_config, read_choice, training_settings, write_choice

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")


def test_a_choice_is_read_as_it_was_written(tmp_path):
    choice = Choice(3, ("head", "encoder.0.0.mixer.expand"))
    write_choice(choice, tmp_path / "choice.json")
    assert read_choice(tmp_path / "choice.json") == choice


def test_without_a_choice_the_way_to_one_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro analyze"):
        read_choice(tmp_path / "choice.json")


@pytest.mark.parametrize("content", ["{", '{"rank": 3}', '{"rank": null, "layers": ["a"]}', "[]"])
def test_a_damaged_choice_is_told(tmp_path, content):
    (tmp_path / "choice.json").write_text(content)
    with pytest.raises(ValueError, match="expected rank and layers"):
        read_choice(tmp_path / "choice.json")


def test_the_model_has_the_params_tasks_and_preset_and_the_choices_biases():
    config = model_config(PARAMS, Choice(3, ("head",)))
    assert config.tasks == tuple(PARAMS.tasks)
    assert (config.rank, config.layers) == (3, ("head",))


def test_training_settings_are_the_params_with_a_warm_up_that_fits():
    settings = training_settings(PARAMS, 50, True)
    assert isinstance(settings, TrainingSettings)
    assert (settings.steps, settings.warmup_steps, settings.bf16) == (50, 5, True)
    assert settings.task_weights == tuple(task.weight for task in PARAMS.tasks.values())
    assert settings.learning_rate == PARAMS.train.learning_rate
    assert settings.frequency_weight == PARAMS.train.frequency_weight > 0
    assert training_settings(PARAMS, 10**5, False).warmup_steps == PARAMS.train.warmup_steps
