"""Harm and sight are measured as they say, on models that are made to do harm or to see wrongly."""

import numpy as np
import pytest
import torch

from pipelines.data.metrics import psnr
from pipelines.scoring.scores import FEW, score_harm, score_sight


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    return {
        task: [
            ((clean + rng.normal(0, 0.05, clean.shape)).clip(0, 1).astype(np.float32), clean)
            for clean in rng.uniform(0.2, 0.8, (FEW + 2, 16, 16, 3)).astype(np.float32)
        ]
        for task in ("denoise", "derain")
    }


def see(model, label):
    with torch.no_grad():
        model.estimator.score.weight.zero_()
        model.estimator.score.bias.zero_()
        model.estimator.score.bias[label] = 9


def test_a_model_that_changes_nothing_does_no_harm(make_config, pairs):
    from ipt.model import InstructIPT

    model = InstructIPT(make_config()).eval()  # an untrained backbone is the identity
    harm = score_harm(model, pairs)
    assert list(harm) == [*model.config.tasks, "blind"]
    for row in harm.values():
        assert list(row) == ["clean", "denoise", "derain"]
        assert row == pytest.approx(dict.fromkeys(row, 0.0), abs=0.01)


def test_harm_is_the_mean_change_of_clean_images_and_the_gain_on_damage(make_config, pairs):
    from ipt.model import InstructIPT

    model = InstructIPT(make_config()).eval()
    with torch.no_grad():
        model.backbone.head.bias.fill_(10 / 255)  # ten grey levels brighter, whatever the task
    see(model, len(model.config.tasks))
    harm = score_harm(model, pairs)
    assert harm["denoise"]["clean"] == pytest.approx(10, abs=0.05)
    gains = [psnr((d + np.float32(10 / 255)).clip(0, 1), c) - psnr(d, c) for d, c in pairs["derain"][:FEW]]
    assert harm["denoise"]["derain"] == pytest.approx(np.mean(gains), abs=0.02)
    assert harm["blind"] == {"clean": 0, "denoise": 0, "derain": 0}  # it takes everything for clean


def test_sight_is_the_share_seen_rightly(make_config, pairs):
    from ipt.model import InstructIPT

    model = InstructIPT(make_config()).eval()
    see(model, len(model.config.tasks))
    assert score_sight(model, "denoise", pairs["denoise"]) == {"degraded": 0, "clean": 1}
    see(model, model.config.tasks.index("denoise"))
    assert score_sight(model, "denoise", iter(pairs["denoise"])) == {"degraded": 1, "clean": 0}
    assert score_sight(model, "derain", pairs["derain"])["degraded"] == 0
    model.estimator.score.bias.data.fill_(-9)
    model.estimator.score.bias.data[:2] = 0  # as likely the one as the other: left alone
    assert score_sight(model, "denoise", pairs["denoise"]) == {"degraded": 0, "clean": 1}
