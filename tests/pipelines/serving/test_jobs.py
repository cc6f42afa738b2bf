"""Pictures that wait together: each gets what it would get alone, and its own error."""

import numpy as np
import pytest

from ipt.model import InstructIPT
from ipt.network.backbone import Backbone
from ipt.page.progress import AbandonedError
from ipt.restoring.restore import restore_image
from pipelines.serving import jobs as serve_batch
from pipelines.serving.jobs import Job, restore_alone, restore_jobs
from pipelines.serving.model import Loaded


@pytest.fixture(scope="module")
def models(make_config, fill_parameters, see_nothing):
    return [see_nothing(fill_parameters(InstructIPT(make_config()), seed, 0.1)).eval() for seed in (0, 1)]


def picture(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_batch_may_mix_tasks_sizes_strengths_and_models(models):
    first, second = (Loaded(model, str(number), 1) for number, model in enumerate(models))
    jobs = [
        Job(first, picture(0), task="denoise"),
        Job(first, picture(1), task="deblur"),
        Job(second, picture(2), task="deblur"),
        Job(first, picture(3, 31, 9), task="derain"),
        Job(first, picture(4), task="derain", strength=0.5),
        Job(first, picture(5)),  # untrained, it leaves it
        Job(second, picture(6), task="denoise"),
    ]
    outcomes = restore_jobs(jobs)
    assert [outcome.batch for outcome in outcomes] == [2, 2, 2, 1, 1, 1, 2]
    for job, outcome in zip(jobs, outcomes, strict=True):
        alone = restore_image(job.loaded.model, job.levels, task=job.task, strength=job.strength)
        assert np.abs(outcome.restored.astype(int) - alone).max() <= 1
        assert outcome.plan.tasks == ((job.task,) if job.task else ())
        assert np.array_equal(restore_alone(job.loaded.model, job).restored, alone)
    assert np.array_equal(outcomes[5].restored, jobs[5].levels)


def test_a_job_counts_its_tiles_and_ends_between_two(models, monkeypatch):
    monkeypatch.setattr("ipt.page.progress.affordable_tile", lambda *_: 100)
    job = Job(Loaded(models[0], "0", 1), picture(0, 200, 150), task="derain")
    restored = restore_alone(models[0], job).restored
    assert job.tile == job.tiles > 4
    assert job.plan.tasks == ("derain",)
    assert np.array_equal(restored, restore_image(models[0], job.levels, task="derain", tile=100))
    begun = Job(Loaded(models[0], "0", 1), picture(0, 200, 150), task="derain")
    monkeypatch.setattr(begun, "check", lambda: begun.tile < 3 or begun.cancelled.set() or Job.check(begun))
    with pytest.raises(AbandonedError):
        restore_alone(models[0], begun)
    assert begun.tile == 3 < begun.tiles


def test_several_tasks_are_done_one_after_the_other(models, monkeypatch):
    monkeypatch.setattr(InstructIPT, "read", lambda self, text: (("denoise", "deblur"), {}))
    job = Job(Loaded(models[0], "0", 1), picture(0), instruction="both")
    outcome = restore_jobs([job])[0]
    assert outcome.plan.tasks == ("denoise", "deblur")
    assert np.array_equal(outcome.restored, restore_image(models[0], job.levels, instruction="both"))


def test_what_is_wrong_with_one_picture_is_told_to_it_alone(models):
    loaded = Loaded(models[0], "0", 1)
    jobs = [Job(loaded, picture(0), task=task) for task in ("denoise", "dance", "deblur")]
    gone = Job(loaded, picture(1), task="deblur")
    gone.cancelled.set()
    first, wrong, last, abandoned = restore_jobs([*jobs, gone])
    assert isinstance(wrong, ValueError)
    assert "dance" in str(wrong)
    assert isinstance(abandoned, AbandonedError)
    assert first.batch == last.batch == 2
    with pytest.raises(AbandonedError):
        restore_alone(models[0], gone)


def test_a_picture_of_which_the_network_makes_no_numbers_costs_its_own_request(models, monkeypatch):
    forward = Backbone.forward

    def spoil_the_first(self, batch):
        restored = forward(self, batch)
        restored[0] = float("nan")
        return restored

    monkeypatch.setattr(Backbone, "forward", spoil_the_first)
    loaded = Loaded(models[0], "0", 1)
    first, second = restore_jobs([Job(loaded, picture(seed), task="denoise") for seed in range(2)])
    assert isinstance(first, RuntimeError)
    assert "values that are no numbers" in str(first)
    assert second.batch == 2


@pytest.mark.parametrize(("tile", "batches"), [(24, [1, 1, 1]), (35, [2, 2, 1]), (23, [1, 1, 1])])
def test_a_batch_is_no_larger_than_memory_allows(models, monkeypatch, tile, batches):
    monkeypatch.setattr(serve_batch, "affordable_tile", lambda *arguments: tile)
    loaded = Loaded(models[0], "0", 1)
    outcomes = restore_jobs([Job(loaded, picture(seed), task="denoise") for seed in range(3)])
    assert [outcome.batch for outcome in outcomes] == batches
