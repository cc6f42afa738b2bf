"""The weights that a training begins with."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ipt.model import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.network.modulation import task_parameters
from ipt.network.task_network import TaskNetwork
from ipt.pretrained import pretrained_network
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings, TrainingState, synchronous_step
from pipelines.cluster.storage import Storage
from pipelines.common.params import load_params
from pipelines.training.beginning import begin, begun_with, new_network, weights_hash
from pipelines.training.choice import training_settings

SETTINGS = TrainingSettings(
    steps=5, learning_rate=1e-2, bias_learning_rate=1e-2, warmup_steps=1, weight_decay=0.1,
    clip_norm=1.0, ema_decay=0.9, task_weights=(1.0, 1.0, 1.0), bf16=False,
)  # fmt: skip


@pytest.fixture(params=[TaskNetwork, InstructIPT], ids=["trained", "compressed"])
def given(request, make_config, fill_parameters, tmp_path):
    """A network with noise in every weight, out of a checkpoint, and its config."""
    config = make_config()
    save_model(fill_parameters(request.param(config), 0), tmp_path / "given")
    return pretrained_network(tmp_path / "given"), config


def restored(network: TaskNetwork, task: str) -> torch.Tensor:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network.eval()(x, torch.tensor([network.task_index(task)]))


def test_it_restores_as_the_model_that_it_begins_with_whatever_the_order_of_tasks(given):
    source, config = given
    theirs = begun_with(source, config, "all")
    ours = begun_with(source, dataclasses.replace(config, tasks=("deblur", "denoise")), "all")
    for task in ("deblur", "denoise"):
        torch.testing.assert_close(restored(ours, task), restored(theirs, task), rtol=0, atol=1e-6)
    assert not torch.equal(restored(ours, "deblur"), restored(ours, "denoise"))


def test_a_new_task_begins_with_the_backbone_alone(given):
    source, config = given
    ours = begun_with(source, dataclasses.replace(config, tasks=(*config.tasks, "brighten")), "biases")
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x, torch.tensor([3])), ours(x, None))


def test_where_only_biases_learn_nothing_else_changes(given):
    source, config = given
    network = begun_with(source, config, "biases")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = TrainingState(network, SETTINGS)
    clean = torch.rand(6, 3, 8, 8)
    synchronous_step(state, network, Batch(clean * 0.7, clean, torch.tensor([0, 0, 1, 1, 2, 2])))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith((".task_up", ".task_down")) for name in changed)


def test_a_task_that_learns_alone_leaves_the_others_as_they_are_to_the_bit(given):
    source, config = given
    wider = dataclasses.replace(config, tasks=(*config.tasks, "brighten", "dejpeg"))
    network = begun_with(source, wider, ("brighten", "dejpeg"))
    before = [restored(network, task) for task in wider.tasks]
    real = load_params(Path(__file__).parents[3] / "params.yaml")
    train = dataclasses.replace(real.train, begin_with="instruct-ipt", learn=("brighten", "dejpeg"))
    state = TrainingState(network, training_settings(dataclasses.replace(real, train=train), 20, bf16=False))
    clean = torch.rand(4, 3, 8, 8)
    state.settings = dataclasses.replace(state.settings, task_weights=(1.0,) * 5)
    for step in range(3):
        synchronous_step(state, network, Batch(clean * 0.7, clean, torch.tensor([3, 3, 4, 4])))
        state.step = step + 1
    for kept in (network, state.ema.module):
        after = [restored(kept, task) for task in wider.tasks]
        assert all(torch.equal(*pair) for pair in zip(before[:3], after[:3], strict=True))
        assert not any(torch.equal(*pair) for pair in zip(before[3:], after[3:], strict=True))


def test_another_network_is_refused_with_what_to_set(given):
    source, config = given
    with pytest.raises(ValueError, match=r"built differently: width 8, here 16.*modulation.rank: 2 and .*layers: \[\*"):
        begun_with(source, dataclasses.replace(config, width=16), "all")


def test_the_start_of_a_run_is_written_once_and_whole(given, tmp_path):
    source, config = given
    storage = Storage(str(tmp_path / "runs"))
    folder = begin(storage, "train-1", begun_with(source, config, "biases"), SETTINGS)
    begin(storage, "train-1", new_network(config, "biases"), SETTINGS)  # goes on: the first one stays
    storage.fetch(folder, tmp_path / "fetched")
    state = TrainingState(new_network(config, "biases"), SETTINGS)
    state.load(tmp_path / "fetched")
    assert state.step == 0
    torch.testing.assert_close(restored(state.model, "denoise"), restored(begun_with(source, config, "all"), "denoise"))


def test_the_hash_is_that_of_the_weights(given, tmp_path, make_config, fill_parameters):
    source, _ = given
    save_model(fill_parameters(TaskNetwork(make_config()), 1), tmp_path / "other")
    assert weights_hash(source) == weights_hash(source) != weights_hash(pretrained_network(tmp_path / "other"))


def test_all_learns_everything_and_biases_the_factors(make_config):
    assert all(p.requires_grad for p in new_network(make_config(), "all").parameters())
    network = new_network(make_config(), "biases")
    learning = [p for p in network.parameters() if p.requires_grad]
    assert {id(p) for p in learning} == {id(p) for p in task_parameters(network)}
