"""InstructIPT: any size, each sample with its own task, tasks by name, sentences understood."""

import sys

import numpy as np
import pytest
import torch

import ipt.pretrained
from ipt.model import InstructIPT
from ipt.network.modulation import merge
from ipt.understanding.estimator import MOST_WIDTH, WIDTH, Estimator, estimate
from ipt.understanding.instruction import BUCKETS, MOST_BUCKETS, MOST_READERS, READERS, InstructionModel
from ipt.weights import CheckpointError


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (3, 40), (8, 8), (2, 1)])
@pytest.mark.parametrize("blocks", [(1, 1), (1, 1, 1)])
def test_any_size_comes_back_as_it_was(make_config, randomized, size, blocks):
    model = randomized(make_config(blocks=blocks))
    image = torch.rand(2, 3, *size)
    restored = model(image, torch.tensor([0, 2]))
    assert restored.shape == image.shape
    assert torch.isfinite(restored).all()


@pytest.mark.parametrize("size", [(1, 1), (17, 23)])
def test_starts_as_the_identity_for_every_task(make_config, size):
    image = torch.rand(3, 3, *size)
    assert torch.equal(InstructIPT(make_config())(image, torch.arange(3)), image)


def test_output_is_not_clipped(make_config, randomized):
    restored = randomized(make_config())(torch.rand(3, 3, 8, 8), torch.arange(3))
    assert restored.min() < 0 or restored.max() > 1


def test_padding_repeats_the_edge(make_config, randomized):
    model = randomized(make_config())
    image = torch.rand(1, 3, 5, 6)
    padded = torch.cat([image, image[:, :, -1:].expand(-1, -1, 3, -1)], 2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 2)], 3)
    index = torch.tensor([1])
    assert torch.equal(model(image, index), model(padded, index)[..., :5, :6])


@pytest.mark.parametrize("order", [(0, 1, 2, 0), (0, 0, 1, 1, 2, 2), (2, 0, 1)])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_each_sample_is_restored_with_the_weights_of_its_task(make_config, randomized, order, strength):
    model = randomized(make_config())
    images = torch.rand(len(order), 3, 9, 7)
    together = model(images, torch.tensor(order), strength)
    for number, task in enumerate(order):
        alone = model(images[number : number + 1], torch.tensor([task]), strength)
        torch.testing.assert_close(together[number], alone[0], atol=1e-4, rtol=1e-4)
        merged = merge(model.backbone, task, strength)
        size = model.config.size_multiple
        padded = torch.nn.functional.pad(images[number : number + 1], (0, -7 % size, 0, -9 % size), "replicate")
        torch.testing.assert_close(together[number], merged(padded)[0, :, :9, :7], atol=1e-4, rtol=1e-4)


def test_without_an_index_the_backbone_restores_alone(make_config, randomized):
    model = randomized(make_config())
    image = torch.rand(2, 3, 8, 8)
    alone = model(image, None)
    torch.testing.assert_close(alone, model(image, torch.tensor([0, 1]), 0.0), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(alone, model(image, torch.tensor([0, 1])), atol=1e-3)


def test_no_state_is_left_by_a_call(make_config, randomized):
    model = randomized(make_config())
    image = torch.rand(3, 3, 8, 8)
    first = model(image, torch.arange(3))
    model(image, torch.tensor([2, 2, 2]), 0.3)
    model(image, None)
    assert torch.equal(model(image, torch.arange(3)), first)


def test_task_index_is_the_place_in_the_config(make_config):
    model = InstructIPT(make_config(tasks=("c", "a", "b")))
    assert [model.task_index(task) for task in ("a", "b", "c")] == [1, 2, 0]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("derian", "task: unknown task 'derian'; did you mean 'derain'?"),
        ("xyz", "task: unknown task 'xyz'; this model knows denoise, derain, deblur"),
    ],
)
def test_an_unknown_task_gets_a_hint(make_config, task, message):
    with pytest.raises(ValueError, match=f"^{message.replace('?', '[?]')}$"):
        InstructIPT(make_config()).task_index(task)


def test_understanding_gives_a_probability_for_each_task_by_name(make_config, randomized):
    model = randomized(make_config())
    probabilities = model.understand("take away the rain")
    assert tuple(probabilities) == model.config.tasks
    assert all(0 <= probability <= 1 for probability in probabilities.values())
    expected = model.instruction(["take away the rain"])[0]
    assert list(probabilities.values()) == pytest.approx(expected.tolist())


def test_what_is_asked_are_tasks_by_name_in_their_order(make_config, monkeypatch):
    model = InstructIPT(make_config())
    assert model.read("take away the rain") == ((), model.understand("take away the rain"))
    monkeypatch.setattr(model.instruction, "read", lambda sentences: ([(0, 2)], torch.tensor([[0.9, 0.0, 0.8]])))
    asked, probabilities = model.read("take away the noise and the blur")
    assert asked == ("denoise", "deblur")
    assert probabilities == pytest.approx({"denoise": 0.9, "derain": 0.0, "deblur": 0.8})


@pytest.mark.parametrize(("knows_words", "buckets"), [(True, BUCKETS), (True, 8192), (False, 8192)])  # earlier ones
@pytest.mark.parametrize("readers", [1, READERS, READERS + 1])
def test_a_checkpoint_brings_the_readers_that_were_trained(make_config, tmp_path, readers, knows_words, buckets):
    model = InstructIPT(make_config()).eval()
    built = InstructionModel(len(model.config.tasks), readers, knows_words=knows_words, buckets=buckets)
    model.instruction = built.eval()
    for reader in model.instruction.readers:
        torch.nn.init.normal_(reader.score.weight)
    model.save_pretrained(tmp_path)
    again = InstructIPT.from_pretrained(tmp_path)
    assert (len(again.instruction.readers), again.instruction.knows_words) == (readers, knows_words)
    assert [reader.pieces.num_embeddings for reader in again.instruction.readers] == [buckets] * readers
    assert again.understand("take away the rain") == pytest.approx(model.understand("take away the rain"), rel=1e-3)


def test_a_few_bytes_ask_for_no_crowd_of_readers(make_config):
    model = InstructIPT(make_config())
    model.make_room({f"instruction.readers.{number}.second": () for number in range(MOST_READERS + 1)})
    assert len(model.instruction.readers) == READERS


@pytest.mark.parametrize("shape", [(MOST_BUCKETS + 1, 32), (0, 32), ()])
def test_a_few_bytes_ask_for_no_crowd_of_buckets(make_config, shape):
    model = InstructIPT(make_config())
    model.make_room({"instruction.readers.0.pieces.weight": shape})
    assert model.instruction.readers[0].pieces.num_embeddings == BUCKETS


@pytest.mark.parametrize("width", [64, WIDTH])  # 64: that of earlier versions
def test_a_checkpoint_brings_the_estimator_that_was_trained(make_config, tmp_path, fill_parameters, width):
    model = InstructIPT(make_config()).eval()
    model.estimator = fill_parameters(Estimator(len(model.config.tasks), width).eval(), 0, 0.1)
    model.save_pretrained(tmp_path)
    again = InstructIPT.from_pretrained(tmp_path).estimator
    assert again.width == width
    image = np.random.default_rng(0).random((70, 60, 3), np.float32)
    assert torch.equal(estimate(again, image), estimate(model.estimator, image))


@pytest.mark.parametrize("shape", [(4, MOST_WIDTH + 1), (4, 0), ()])
def test_a_few_bytes_ask_for_no_wide_estimator(make_config, shape):
    model = InstructIPT(make_config())
    model.make_room({"estimator.score.weight": shape})
    assert model.estimator.width == WIDTH


def test_a_model_is_found_by_name_and_a_name_that_nothing_reads_is_told(make_config, randomized, tmp_path, monkeypatch):
    model = randomized(make_config())
    model.save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert InstructIPT.from_pretrained("mine").config == model.config
    released = InstructIPT.from_pretrained()
    assert set(released.config.tasks) >= {"denoise", "derain", "desnow", "dehaze", "deblur"}
    assert not released.training
    with pytest.raises(ValueError, match=r"nothing installed here reads s3:/ \(known: models:/\)"):
        InstructIPT.from_pretrained("s3://bucket/model")


def test_a_registry_without_the_pipeline_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pipelines.registry.fetch", None)  # importing it is an ImportError
    with pytest.raises(ValueError, match=r"models:/a@b: .*pipelines\.registry\.fetch"):
        InstructIPT.from_pretrained("models:/a@b")


def test_a_package_without_its_model_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(ipt.pretrained, "__file__", str(tmp_path / "pretrained.py"))
    with pytest.raises(CheckpointError, match="the model that comes with this package is not there"):
        InstructIPT.from_pretrained()
