"""Training: the loss falls, stopping changes nothing, and what goes wrong is said."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st

from ipt.model import InstructIPT
from ipt.network.modulation import task_parameters
from ipt.training.batch import Batch
from ipt.training.fit import TrainingSettings, TrainingState, fit, learning_rate_factor, synchronous_step
from ipt.training.losses import restoration_loss

SETTINGS = TrainingSettings(
    steps=20, learning_rate=5e-3, bias_learning_rate=5e-3, warmup_steps=3, weight_decay=1e-4,
    clip_norm=1.0, ema_decay=0.9, task_weights=(1.0, 1.0, 1.0), bf16=False,
)  # fmt: skip


@pytest.fixture
def new_state(make_config):
    def make(**changes) -> TrainingState:
        torch.manual_seed(0)
        model = InstructIPT(make_config(head_width=8))
        return TrainingState(model, dataclasses.replace(SETTINGS, **changes))

    return make


def batches(start: int = 0):
    """Three tasks of opposite damage: darker, brighter, less red."""
    for step in itertools.count(start):
        clean = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(step)) * 0.6 + 0.2
        change = torch.zeros(6, 3, 1, 1)
        change[:2], change[2:4], change[4:, 0] = -0.2, 0.2, -0.2
        yield Batch(clean + change, clean, torch.tensor([0, 0, 1, 1, 2, 2]))


def weights(state: TrainingState) -> dict:
    return {
        "task_scale": state.task_scale,
        **{f"model.{name}": value for name, value in state.model.state_dict().items()},
        **{f"ema.{name}": value for name, value in state.ema.state_dict().items()},
        **{
            f"optimizer.{number}.{name}": value
            for number, values in state.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        },
    }


def test_the_loss_of_every_task_falls(new_state):
    reports = []
    fit(new_state(steps=30), batches(), on_step=reports.append)
    assert reports[-1].loss < 0.5 * reports[0].loss
    for first, last in zip(reports[0].task_loss, reports[-1].task_loss, strict=True):
        assert last < 0.7 * first


def test_every_step_is_reported(new_state):
    reports = []
    state = new_state(steps=4)
    fit(state, batches(), on_step=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert state.step == 4
    for report in reports:
        assert report.samples == 6
        assert report.loss == pytest.approx(sum(report.task_loss) / 3)
        assert 0 <= report.wait_seconds <= report.step_seconds
        assert report.gradient_norm > 0
        rate = SETTINGS.learning_rate * learning_rate_factor(report.step - 1, state.settings)
        assert report.learning_rate == pytest.approx(rate)


def test_backbone_and_biases_of_all_tasks_are_trained_and_what_understands_is_not(new_state):
    state = new_state(steps=3)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    fit(state, batches())
    for name, value in state.model.state_dict().items():
        if name.startswith(("instruction", "estimator")):
            assert torch.equal(value, before[name])
        elif "task_up" in name:
            assert all(not torch.equal(value[task], before[name][task]) for task in range(3))
        else:
            assert not torch.equal(value, before[name])


def test_biases_have_a_learning_rate_of_their_own(new_state):
    state = new_state(steps=3, bias_learning_rate=0.0, weight_decay=0.0)
    before = [factor.detach().clone() for factor in task_parameters(state.model)]
    stem = state.model.backbone.stem.weight.detach().clone()
    fit(state, batches())
    assert all(torch.equal(a, b) for a, b in zip(task_parameters(state.model), before, strict=True))
    assert not torch.equal(state.model.backbone.stem.weight, stem)


@pytest.mark.parametrize("stop", [1, 7])
def test_a_continued_run_equals_a_straight_one_bit_for_bit(new_state, tmp_path, stop):
    first = new_state(steps=10)

    def save(report):
        torch.rand(1)  # the random state is part of what is saved
        if report.step == stop:
            first.save(tmp_path)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(first, batches(), on_step=save)
    straight = new_state(steps=10)
    fit(straight, batches(), on_step=lambda report: torch.rand(1))
    expected, expected_random = weights(straight), torch.get_rng_state()

    torch.manual_seed(99)
    continued = new_state(steps=10)
    continued.load(tmp_path)
    assert continued.step == stop
    fit(continued, batches(stop), on_step=lambda report: torch.rand(1))
    got = weights(continued)
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert torch.equal(torch.get_rng_state(), expected_random)


@pytest.mark.parametrize("at_once", [3, 4, 5])
def test_a_batch_in_parts_makes_the_step_of_the_whole(new_state, at_once):
    states = new_state(), new_state(samples_at_once=at_once)
    for batch in itertools.islice(batches(), 2):
        whole, parts = (synchronous_step(state, state.model, batch) for state in states)
        assert parts == {name: pytest.approx(value, rel=1e-4) for name, value in whole.items()}
        for first, second in zip(*(state.model.parameters() for state in states), strict=True):
            if first.grad is not None:  # compared before AdamW, which makes as much of the smallest as of the largest
                torch.testing.assert_close(second.grad, first.grad, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(states[1].task_scale, states[0].task_scale)
        states[1].model.load_state_dict(states[0].model.state_dict())


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 40))
def test_parts_hold_at_most_so_many_samples_and_together_all_of_them(runs, most):
    index = torch.arange(len(runs)).repeat_interleave(torch.tensor(runs))
    numbers = torch.arange(len(index)).float().view(-1, 1, 1, 1)
    batch = Batch(numbers, -numbers, index)
    if most < min(len(runs), len(index)):
        with pytest.raises(ValueError, match=rf"^samples_at_once: expected at least one of each of {len(runs)} tasks"):
            batch.parts(most)
        return
    parts = batch.parts(most)
    assert all(0 < len(part.index) <= most for part in parts)
    assert all((part.index.diff() >= 0).all() and torch.equal(part.clean, -part.degraded) for part in parts)
    together = torch.cat([part.degraded for part in parts]).flatten().long()
    assert torch.equal(together.sort().values, torch.arange(len(index)))
    assert torch.equal(torch.cat([part.index for part in parts]), index[together])
    assert batch.parts(None) == [batch]


def test_a_finished_training_takes_no_batch(new_state):
    state = new_state(steps=2)
    state.step = 2
    fit(state, iter(()))
    assert state.step == 2


def test_batches_that_end_early_are_an_error(new_state):
    state = new_state(steps=5)
    with pytest.raises(RuntimeError, match=r"^training data ended after step 2 of 5$"):
        fit(state, itertools.islice(batches(), 2))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_divergence_is_told_before_it_spoils_the_weights(new_state, value):
    state = new_state(steps=1)
    fit(state, batches())
    before = {name: tensor.clone() for name, tensor in weights(state).items()}
    batch = next(batches())
    batch.degraded[0, 0, 0, 0] = value
    with pytest.raises(RuntimeError, match=r"step 2: loss (nan|inf).*diverged; lower train\.learning_rate"):
        synchronous_step(state, state.model, batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(state).items())


def test_gradients_are_clipped_and_the_norm_before_is_reported(new_state):
    state = new_state(clip_norm=1e-4)
    result = synchronous_step(state, state.model, next(batches()))
    norms = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(1e-4, rel=1e-2)
    assert result["gradient_norm"] > 1e-2


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (50, 0), (8, 1)])
def test_learning_rate_warms_up_linearly_then_falls_as_a_cosine(steps, warmup):
    settings = dataclasses.replace(SETTINGS, steps=steps, warmup_steps=warmup)
    factors = [learning_rate_factor(step, settings) for step in range(steps)]
    assert factors[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
    assert max(factors) == factors[warmup] == 1
    falling = factors[warmup:]
    assert falling == sorted(falling, reverse=True)
    middle = learning_rate_factor((steps + warmup) // 2, settings)
    assert middle == pytest.approx(0.505, abs=0.15)
    assert min(factors) > 0


@pytest.mark.parametrize(("steps", "warmup"), [(7, 1), (20, 3)])
def test_learning_rate_is_1_percent_at_the_last_step(steps, warmup):
    settings = dataclasses.replace(SETTINGS, steps=steps, warmup_steps=warmup)
    assert learning_rate_factor(steps - 1, settings) == pytest.approx(0.01)


@pytest.mark.parametrize("decay", [0, 8, 16])
def test_learning_rate_stays_at_its_peak_until_the_last_decay_steps(decay):
    settings = dataclasses.replace(SETTINGS, steps=20, warmup_steps=4, decay_steps=decay)
    factors = [learning_rate_factor(step, settings) for step in range(20)]
    assert factors[4 : 20 - decay + 1] == [1] * len(factors[4 : 20 - decay + 1])
    assert factors[20 - decay :] == sorted(factors[20 - decay :], reverse=True)
    assert len(set(factors[20 - decay :])) == decay
    whole = [learning_rate_factor(step, dataclasses.replace(settings, decay_steps=None)) for step in range(20)]
    assert (factors == whole) == (decay == 16)


def test_a_task_with_more_weight_is_learned_better(new_state):
    def error_of_first(first: float) -> float:
        state = new_state(task_weights=(first, 1.0, 1.0))
        fit(state, batches())
        return synchronous_step(state, state.model, next(batches(99)))["task_loss"][0]

    assert error_of_first(20.0) < error_of_first(0.05)


def test_gradient_conflict_is_reported_now_and_then_and_leaves_the_training_alone(new_state):
    reports, plain = [], new_state()
    fit(plain, batches())
    watched = new_state()
    fit(watched, batches(), on_step=reports.append, conflict_every=8)
    assert [report.step for report in reports if report.gradient_conflict is not None] == [8, 16]
    assert all(-1 <= report.gradient_conflict <= 1 for report in reports[7::8])
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(watched)[name])


def test_the_loss_of_a_step_holds_the_term_of_the_frequencies(new_state):
    for weight in (0.0, 4.0):
        state, batch = new_state(frequency_weight=weight), next(batches())
        with torch.no_grad():
            expected = restoration_loss(state.model(batch.degraded, batch.index), batch.clean, weight).mean().item()
        assert synchronous_step(state, state.model, batch)["loss"] == pytest.approx(expected)


def test_the_average_follows_the_weights_with_a_window_that_grows(new_state):
    state = new_state(steps=6, ema_decay=0.5)
    averages, seen = [], []

    def watch(report):
        seen.append(state.model.backbone.head.weight.detach().clone())
        averages.append(state.ema.module.backbone.head.weight.detach().clone())

    fit(state, batches(), on_step=watch)
    expected = seen[0]
    assert torch.equal(averages[0], expected)
    for count in range(1, 6):
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * seen[count]
        torch.testing.assert_close(averages[count], expected)


def test_a_batch_moves_to_a_device_whole():
    moved = next(batches()).to(torch.device("meta"))
    assert {t.device.type for t in (moved.degraded, moved.clean, moved.index)} == {"meta"}


def test_bf16_autocast_trains_too(new_state):
    reports = []
    fit(new_state(steps=4, bf16=True), batches(), on_step=reports.append)
    assert all(math.isfinite(report.loss) for report in reports)
