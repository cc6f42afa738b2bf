"""Restoring any image: what is done with it, any size and dtype, and what is refused."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipt.network.backbone import ChannelAttention, GatedConvolution
from ipt.network.modulation import merge, modulated_layers
from ipt.pixels import LEVELS, from_unit, to_unit
from ipt.restoring import restore
from ipt.restoring.restore import Plan, check_image, plan_restoration, restore_image, restore_tasks
from ipt.understanding.instruction import MAX_CHARACTERS, InstructionModel

DTYPES = (np.uint8, np.uint16, np.float32)
TASKS = ("denoise", "derain", "deblur")
LARGE = 10_000  # a tile that holds every picture of these tests


@pytest.fixture
def model(make_config, randomized):
    """Sure of nothing that it reads or sees."""
    model = randomized(make_config(tasks=TASKS))
    see(model, [0, 0, 0, 0])
    model.instruction = InstructionModel(len(TASKS)).eval()  # untrained: it takes nothing to be wanted
    return model


@pytest.fixture
def local(monkeypatch):
    """Without what looks at the whole picture: a network whose output pixels see no further than `reach`."""
    monkeypatch.setattr(GatedConvolution, "forward", lambda self, x: self.project(gated(self.local, self.expand(x))))
    monkeypatch.setattr(ChannelAttention, "forward", attention_to_oneself)


def convolved(convolution, x):
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def gated(convolution, x):
    first, second = convolved(convolution, x).chunk(2, -1)
    return first * second


def attention_to_oneself(self, x):
    return self.project(convolved(self.local, self.query_key_value(x)).chunk(3, -1)[2])


def see(model, scores):
    """Have the model score every picture so, clean last."""
    model.estimator.score.weight.data.zero_()
    model.estimator.score.bias.data.copy_(torch.tensor(scores))


def understand(monkeypatch, model, **probabilities):
    asked = tuple(task for task in TASKS if task in probabilities)
    monkeypatch.setattr(model, "read", lambda _: (asked, {task: probabilities.get(task, 0.1) for task in TASKS}))


def random_image(height, width, dtype=np.float32):
    return from_unit(np.random.default_rng(0).random((height, width, 3), np.float32), dtype)


def by_the_model(model, image, *tasks, strength=1.0):
    batch = torch.from_numpy(to_unit(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        for task in tasks:
            batch = model(batch, torch.tensor([model.task_index(task)]), strength).clamp(0, 1)
    return from_unit(batch[0].permute(1, 2, 0).numpy(), image.dtype)


def assert_same(image, other, levels=1):
    """Within a level; for float32, which has none, within rounding errors."""
    assert (image.dtype, image.shape) == (other.dtype, other.shape)
    np.testing.assert_allclose(image.astype(float), other, atol=1e-4 if image.dtype == np.float32 else levels, rtol=0)


# What is done


@pytest.mark.parametrize("size", [(1, 2), (17, 23), (8, 8), (1, 30), (30, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
def test_a_task_is_done_with_its_strength(model, size, dtype, strength):
    image = random_image(*size, dtype)
    before = image.copy()
    restored = restore_image(model, image, task="derain", strength=strength)
    # In 16 bits the rounding errors of float32 may be levels.
    assert_same(restored, by_the_model(model, image, "derain", strength=strength), 7 if dtype == np.uint16 else 1)
    assert np.array_equal(image, before)
    assert not np.shares_memory(restored, image)
    assert not np.array_equal(restored, image)


def test_strength_scales_the_bias_of_the_task(model):
    image = random_image(9, 9)
    alone = [restore_image(model, image, task=task, strength=0) for task in TASKS]
    assert np.array_equal(alone[0], alone[1])  # without its bias, a task is the common backbone
    of_full, of_half = (restore_image(model, image, task="derain", strength=strength) for strength in (1, 0.5))
    assert np.abs(of_half - of_full).max() > 0.01
    assert np.array_equal(of_full, restore_image(model, image, task="derain"))


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::-1], np.s_[..., ::-1], np.s_[::2, 1:]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_view_is_restored_as_its_copy(model, view, dtype):
    image = random_image(9, 12, dtype)
    image.flags.writeable = False
    expected = restore_image(model, image[view].copy(), task="derain")
    assert np.array_equal(restore_image(model, image[view], task="derain"), expected)


def test_the_model_stays_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = random_image(9, 9)
    first = restore_image(model, image, task="deblur")
    see(model, [9, 0, 0, 0])
    restore_image(model, image, strength=0.1)
    see(model, [0, 0, 0, 0])
    restore_image(model, image, instruction="no more rain")
    assert np.array_equal(restore_image(model, image, task="deblur"), first)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert not changed
    assert not model.training
    selection = next(iter(modulated_layers(model.backbone).values())).selection
    assert (selection.index, selection.strength) == (None, 1.0)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_tasks_are_done_one_after_the_other_without_rounding_between(model, dtype):
    image = random_image(13, 20, dtype)
    restored = restore_tasks(model, image, ["derain", "denoise"])
    assert_same(restored, by_the_model(model, image, "derain", "denoise"), 7 if dtype == np.uint16 else 1)
    other_way = restore_tasks(model, image, ["denoise", "derain"])
    assert np.abs(to_unit(other_way) - to_unit(restored)).max() > 0.01


def test_no_task_is_a_copy(model):
    image = random_image(4, 5)
    same = restore_tasks(model, image, [])
    assert np.array_equal(same, image)
    assert not np.shares_memory(same, image)


@pytest.mark.parametrize("tasks", [("derain",), ("derain", "denoise")])
def test_tiled_equals_whole_for_a_network_without_global_parts(model, local, tasks):
    reach = model.backbone.reach * len(tasks)

    @settings(deadline=None, max_examples=12)
    @given(st.integers(1, 260), st.integers(1, 260), st.integers(0, 40), st.sampled_from(DTYPES))
    def equal(height, width, more, dtype):
        image = random_image(height, width, dtype)
        whole, tiled = (
            restore_tasks(model, image, tasks, tile=tile, precision="fp32") for tile in (LARGE, 2 * reach + 48 + more)
        )
        # In levels: one of 8 bits is more than 1 / 255 by the rounding of float32.
        assert np.abs(whole.astype(float) - tiled).max() / LEVELS.get(whole.dtype, 1) <= 1 / 255
        assert_same(tiled, whole, 7 if dtype == np.uint16 else 1)

    equal()


def test_pixels_that_reach_leaves_out_would_be_seen(model, local, monkeypatch):
    """So the test above would notice a reach that is too short."""
    image = random_image(1, 160)
    whole = restore_image(model, image, task="derain", tile=LARGE)
    monkeypatch.setattr(type(model.backbone), "reach", 2)
    assert np.abs(whole - restore_image(model, image, task="derain", tile=48)).max() > 1 / 255


@pytest.mark.parametrize("tasks", [("derain",), ("derain", "denoise")])
def test_without_a_tile_memory_decides_by_all_that_is_seen(model, monkeypatch, tasks):
    image, asked = random_image(20, 200), []
    reach = model.backbone.reach * len(tasks)
    smallest = 2 * reach + 32 + 4

    def affordable(*arguments):
        asked.append(arguments)
        return smallest

    monkeypatch.setattr(restore, "affordable_tile", affordable)
    restored = restore_tasks(model, image, tasks)
    assert asked == [(model.config, reach, torch.device("cpu"), None)]
    assert np.array_equal(restored, restore_tasks(model, image, tasks, tile=smallest))
    assert len(asked) == 1  # a tile that is named is not asked for
    assert not np.array_equal(restored, restore_tasks(model, image, tasks, tile=LARGE))  # it has global parts


def test_a_tile_that_is_too_small_is_refused(model):
    reach = model.backbone.reach
    message = f"tile: expected at least {2 * reach + 36} pixels for a network that sees {reach} pixels to each side"
    with pytest.raises(ValueError, match=f"^{message}, got 16$"):
        restore_image(model, random_image(4, 40), task="derain", tile=16)
    with pytest.raises(ValueError, match=f"expected at least {4 * reach + 36} pixels"):
        restore_tasks(model, random_image(4, 120), ["derain", "deblur"], tile=2 * reach + 36)


def test_flat_images_come_back_as_they_are(model):
    @settings(deadline=None, max_examples=50)
    @given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(DTYPES), st.data())
    def same(height, width, dtype, data):
        most = LEVELS.get(np.dtype(dtype), 1)
        near = st.floats(0, 2 / 255 - 1e-6)
        low = np.array(data.draw(st.tuples(*3 * [st.floats(0, 1 - 2 / 255)])))
        noise = np.random.default_rng(0).random((height, width, 3)) * data.draw(near)
        image = np.floor((low + noise) * most).astype(dtype) if most > 1 else (low + noise).astype(dtype)
        before = image.copy()
        tasks = data.draw(st.lists(st.sampled_from(TASKS), min_size=1, max_size=2))
        restored = restore_tasks(model, image, tasks)
        assert restored.dtype == dtype
        assert np.array_equal(restored, image)
        assert not np.shares_memory(restored, image)
        assert np.array_equal(image, before)

    same()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_one_colour_comes_back_as_it_is_in_every_task(model, task, dtype, value):
    image = from_unit(np.full((40, 30, 3), value, np.float32), dtype)
    assert np.array_equal(restore_image(model, image, task=task), image)
    image[..., 1] //= 2
    assert np.array_equal(restore_image(model, image, task=task), image)
    pixel = image[:1, :1]
    assert np.array_equal(restore_image(model, pixel, task=task), pixel)


@pytest.mark.parametrize(("dtype", "step"), [(np.uint8, 3), (np.uint16, 515), (np.float32, 2.01 / 255)])
@pytest.mark.parametrize("channel", range(3))
def test_an_image_with_a_little_more_in_one_channel_is_restored(model, dtype, step, channel):
    image = from_unit(np.full((8, 8, 3), 0.5, np.float32), dtype)
    image[2, 3, channel] += step
    assert not np.array_equal(restore_image(model, image, task="derain"), image)


# What is planned


def test_a_named_task_is_done(model):
    see(model, [9, 0, 0, 0])
    assert plan_restoration(model, random_image(4, 4), task="derain") == Plan(("derain",), "task", {})


def test_an_instruction_that_is_understood_is_followed(model, monkeypatch):
    see(model, [9, 0, 0, 0])
    image = random_image(9, 9)
    understand(monkeypatch, model, derain=0.9)
    plan = plan_restoration(model, image, instruction="it rains")
    assert plan == Plan(("derain",), "instruction", {"denoise": 0.1, "derain": 0.9, "deblur": 0.1}, ("derain",))
    asked = restore_image(model, image, instruction="it rains")
    assert np.array_equal(asked, restore_image(model, image, task="derain"))


def test_an_instruction_is_read_by_the_model(model, monkeypatch):
    read = {"sharper, please": [0.0, 0.1, 0.1, 0.8, 0.0, 0.0, 0.0]}  # nothing, a task, or two
    monkeypatch.setattr(model.instruction, "of_sets", lambda sentences: torch.tensor([read[s] for s in sentences]))
    plan = plan_restoration(model, random_image(4, 4), instruction="sharper, please")
    assert (plan.tasks, plan.by, plan.understood) == (("deblur",), "instruction", ("deblur",))
    assert plan.probabilities == model.understand("sharper, please")


def test_an_instruction_may_ask_for_two_tasks_which_are_done_in_the_order_of_the_model(model, monkeypatch):
    image = random_image(9, 14)
    understand(monkeypatch, model, deblur=0.9, denoise=0.8)
    plan = plan_restoration(model, image, instruction="sharper and less noise")
    assert (plan.tasks, plan.by) == (("denoise", "deblur"), "instruction")
    both = restore_image(model, image, instruction="sharper and less noise")
    assert_same(both, by_the_model(model, image, "denoise", "deblur"))


@pytest.mark.parametrize("number", range(3))
def test_without_either_the_damage_that_shows_is_restored(model, number):
    image = random_image(20, 20)
    see(model, [9 if place == number else 0 for place in range(4)])
    plan = plan_restoration(model, image)
    assert (plan.tasks, plan.by, plan.understood) == ((TASKS[number],), "blind", None)
    assert list(plan.probabilities) == [*TASKS, "clean"]
    assert sum(plan.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert plan.probabilities[TASKS[number]] > 0.99
    assert np.array_equal(restore_image(model, image), restore_image(model, image, task=TASKS[number]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "scores",
    [
        [0, 0, 0, 9],  # clean
        [0, 0, 0, 0],
        [5, 5, 0, 0],  # of two, neither for sure
        [1, 0, 0, 0],  # 0.475
        [3, 0, 0, 3.1],
    ],
)
@pytest.mark.parametrize("instruction", [None, "hello there"])
def test_an_image_that_is_clean_or_not_surely_damaged_comes_back_bit_for_bit(model, dtype, scores, instruction):
    see(model, scores)
    image = random_image(40, 50, dtype)
    assert plan_restoration(model, image, instruction=instruction).tasks == ()
    same = restore_image(model, image, instruction=instruction)
    assert same.dtype == image.dtype
    assert same.tobytes() == image.tobytes()
    assert not np.shares_memory(same, image)


def test_one_damage_more_likely_than_all_else_is_enough(model):
    see(model, [1.2, 0, 0, 0])  # 0.525
    assert plan_restoration(model, random_image(20, 20)).tasks == ("denoise",)


@pytest.mark.parametrize("instruction", ["", "hello there", "???"])
def test_an_unclear_instruction_leaves_it_to_the_image_and_the_plan_says_so(model, instruction):
    image = random_image(20, 20)
    see(model, [0, 9, 0, 0])
    plan = plan_restoration(model, image, instruction=instruction)
    assert (plan.tasks, plan.by, plan.understood) == (("derain",), "blind", ())
    assert plan.probabilities == plan_restoration(model, image).probabilities
    asked = restore_image(model, image, instruction=instruction)
    assert np.array_equal(asked, restore_image(model, image, task="derain"))


# What is refused


@pytest.mark.parametrize("strength", [-0.01, 1.51, float("nan"), float("inf"), -float("inf")])
def test_a_strength_that_is_out_of_range_is_refused(model, strength):
    image = random_image(4, 4)
    message = f"^{re.escape(f'strength: expected 0.0 to 1.5, got {strength}')}$"
    for arguments in ({"task": "derain"}, {}, {"instruction": "no rain"}):
        with pytest.raises(ValueError, match=message):
            restore_image(model, image, **arguments, strength=strength)
    with pytest.raises(ValueError, match=message):
        restore_tasks(model, image[:1, :1], ["derain"], strength=strength)


def test_an_unknown_task_is_refused(model):
    image = random_image(4, 4)
    for call in (restore_image, plan_restoration):
        with pytest.raises(ValueError, match=r"^task: unknown task 'derian'; did you mean 'derain'"):
            call(model, image, task="derian")
        with pytest.raises(ValueError, match=r"^task: unknown task ''; this model knows denoise, derain, deblur$"):
            call(model, image, task="")
    for tasks in (["derain", "dehaze"], ["dehaze"]):
        with pytest.raises(ValueError, match="unknown task 'dehaze'"):
            restore_tasks(model, image[:1, :1], tasks)  # of a flat image too


def test_both_a_task_and_an_instruction_are_refused(model):
    message = "^restore: expected a task or an instruction, got both: 'derain' and 'no rain'$"
    for call in (restore_image, plan_restoration):
        with pytest.raises(ValueError, match=message):
            call(model, random_image(4, 4), task="derain", instruction="no rain")
        with pytest.raises(ValueError, match="got both: 'derain' and ''"):
            call(model, random_image(4, 4), task="derain", instruction="")


def test_a_document_is_no_instruction(model):
    with pytest.raises(ValueError, match=r"^instruction: expected at most"):
        restore_image(model, random_image(4, 4), instruction="rain " * MAX_CHARACTERS)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), r"expected uint8, uint16 or float32 \(H, W, 3\), got float64 \(4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float16), "got float16"),
        (np.zeros((4, 4, 3), np.int8), "got int8"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((4, 4, 3), np.uint32), "got uint32"),
        (np.zeros((4, 4, 3), bool), "got bool"),
        (np.zeros((4, 4, 3), ">u2"), "got >u2"),
        (np.zeros((4, 4, 3), ">f4"), "got >f4"),
        (np.zeros((4, 4, 3), np.complex64), "got complex64"),
        (np.zeros((4, 4), np.float32), r"got float32 \(4, 4\)"),
        (np.zeros((4, 4), np.uint8), r"got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 1), np.uint8), r"got uint8 \(4, 4, 1\)"),
        (np.zeros((3, 4, 4), np.float32), r"got float32 \(3, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.float32), r"got float32 \(1, 4, 4, 3\)"),
        (np.zeros((), np.uint8), r"got uint8 \(\)"),
        (np.zeros((0, 4, 3), np.float32), r"expected at least one pixel, got \(0, 4, 3\)"),
        (np.zeros((4, 0, 3), np.uint8), r"expected at least one pixel, got \(4, 0, 3\)"),
        (np.full((4, 4, 3), 1.01, np.float32), r"expected values in \[0, 1\], got 1\.0\d* to 1\.0"),
        (np.full((4, 4, 3), -0.01, np.float32), "expected values in"),
        (np.where(np.arange(48).reshape(4, 4, 3) == 7, np.nan, 0.5).astype(np.float32), "got nan to nan"),
        (np.full((4, 4, 3), np.inf, np.float32), "expected values in"),
        (np.where(np.arange(48).reshape(4, 4, 3) == 7, -np.inf, 0.5).astype(np.float32), "got -inf to 0.5"),
    ],
)
def test_another_kind_of_image_is_refused(model, image, message):
    with pytest.raises(ValueError, match=f"^image: .*{message}"):
        check_image(image)
    for arguments in ({}, {"task": "derain"}, {"instruction": "no rain"}):
        with pytest.raises(ValueError, match=f"^image: .*{message}"):
            restore_image(model, image, **arguments)
    with pytest.raises(ValueError, match=f"^image: .*{message}"):
        restore_tasks(model, image, [])


@pytest.mark.parametrize("dtype", DTYPES)
def test_images_at_the_ends_of_the_range_are_taken(dtype):
    check_image(np.zeros((1, 1, 3), dtype))
    check_image(np.full((2, 5, 3), LEVELS.get(np.dtype(dtype), 1), dtype))


def test_what_is_raised_before_a_tile_ends_the_work(model):
    image = np.random.default_rng(0).integers(0, 256, (40, 400, 3), np.uint8)
    calls = []

    def stop_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    tile = 2 * model.backbone.reach + 32 + model.config.size_multiple
    with pytest.raises(KeyboardInterrupt):
        restore_tasks(model, image, TASKS[:1], tile=tile, before_tile=stop_at_the_third)
    assert len(calls) == 3


def test_half_precision_rounds_what_is_added_and_never_the_picture(model):
    """A calm network, as trained ones are: bf16 moves a pixel by little, and float32 is what there is without it."""
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(0.3)
    image = random_image(60, 70)
    exact, half, auto = (restore_tasks(model, image, ["derain"], precision=p) for p in ("fp32", "bf16", "auto"))
    assert not np.array_equal(exact, image)
    assert np.abs(exact.astype(int) - half).max() <= 2
    assert np.array_equal(auto, exact)  # these tests run as on a CPU without it
    fine = random_image(60, 70, np.uint16)
    nothing = restore_tasks(model, fine, ["derain"], precision="bf16", strength=0.0)
    unchanged = merge(model.backbone, 0, 0.0)
    with torch.no_grad():
        unchanged.head.weight.zero_(), unchanged.head.bias.zero_()
    assert nothing.dtype == np.uint16
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        batch = torch.from_numpy(to_unit(fine)).permute(2, 0, 1)[None]
        assert torch.equal(unchanged(batch), batch)


def test_best_quality_is_the_mean_over_the_picture_and_its_flips(model):
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(0.3)  # calm, so that few pixels are clipped
    image = random_image(37, 50, np.float32)
    turned = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    one, upside, mirrored, both = (restore_tasks(model, np.ascontiguousarray(each), ["derain"]) for each in turned)
    # In the network before clipping: here no pixel is clipped.
    mean = (one + upside[::-1] + mirrored[:, ::-1] + both[::-1, ::-1]) / 4
    best = restore_image(model, image, task="derain", quality="best")
    inside = np.all([(part > 0) & (part < 1) for part in (one, upside[::-1], mirrored[:, ::-1], both[::-1, ::-1])], 0)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(best[inside], mean[inside], atol=1e-4)
    assert not np.array_equal(best, one)
    turned_best = restore_image(model, np.ascontiguousarray(image[:, ::-1]), task="derain", quality="best")
    np.testing.assert_allclose(turned_best[:, ::-1], best, atol=1e-4)  # which way a picture is held changes nothing
