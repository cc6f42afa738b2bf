"""What faults cost, from what a run has noted of its lives and checkpoints."""

import time

import pytest

from pipelines.cluster.progress import History, Life, Progress, faults

CHECKPOINTS = [{"step": 100, "time": 1050.0}, {"step": 200, "time": 1150.0}, {"step": 300, "time": 1300.0}]


def test_without_faults_nothing_is_lost():
    assert faults([Life(0, 1000.0, 2)], History(checkpoints=CHECKPOINTS)) == {
        "restarts": 0, "seconds_lost": 0.0, "goodput": 1.0,
    }  # fmt: skip


def test_lost_is_what_lies_between_a_checkpoint_and_the_first_batch_after_it():
    lives = [Life(0, 1000.0, 2), Life(0, 1010.0, 2), Life(100, 1080.0, 1)]
    assert faults(lives, History(checkpoints=CHECKPOINTS)) == {
        "restarts": 2,
        "seconds_lost": 40.0,  # 10 from the start, 30 from the first checkpoint
        "goodput": round(1 - 40 / 300, 4),
    }


def test_lives_from_one_checkpoint_lose_its_time_once():
    lives = [Life(0, 1000.0, 2), Life(100, 1080.0, 2), Life(100, 1120.0, 2)]
    lost = 70.0  # from the checkpoint to the first batch of the last life, not 30 and 70
    assert faults(lives, History(checkpoints=CHECKPOINTS))["seconds_lost"] == lost


def test_a_run_of_one_moment_has_lost_nothing():
    assert faults([Life(5, 1000.0, 1)], History())["goodput"] == 1.0


@pytest.mark.parametrize(("apart", "lost"), [(-3600, 0.0), (3600, 3630.0)])
def test_clocks_that_disagree_give_no_times_below_nothing(apart, lost):
    """The second life's first worker is on a machine whose clock is an hour off."""
    lives = [Life(0, 1000.0, 2), Life(100, 1080.0 + apart, 1)]
    cost = faults(lives, History(checkpoints=CHECKPOINTS))
    assert cost["seconds_lost"] == lost
    assert 0 <= cost["goodput"] <= 1


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"restarts": 1, "workers": 2}, "train: step 7/9, workers: 2, restarts so far: 1"),
        ({"loss": 0.04, "samples_per_second": 12.34}, "train: step 7/9, loss 0.0400, 12.3 samples/s"),
        ({"val_psnr/derain": 28.123}, "train: step 7/9, derain 28.12 dB"),
    ],
)
def test_each_kind_of_row_is_told_in_its_own_words(local_ray, capsys, row, line):
    logged = []
    with Progress("train", 9, lambda step, values: logged.append((step, values))) as progress:
        progress.queue.put({"step": 7} | row)
        until = time.monotonic() + 20
        while not logged and time.monotonic() < until:
            time.sleep(0.05)
    assert logged == [(7, row)]
    assert line in capsys.readouterr().out
