"""The candidates for the backbone's blocks."""

import pytest
import torch

from benchmarks.backbones import candidates, gmac
from ipt.network.backbone import Backbone, ChannelAttention
from ipt.network.config import preset_config

CONFIGS = candidates(preset_config("tiny", ("denoise",), 2, ("head",)))


@pytest.mark.parametrize(("name", "attending"), list(zip(CONFIGS, (0, 1, 3, 5), strict=True)))
def test_candidates_attend_where_they_say(name, attending):
    backbone = Backbone(CONFIGS[name])
    assert sum(isinstance(module, ChannelAttention) for module in backbone.modules()) == attending
    assert backbone(torch.rand(1, 3, 16, 24)).shape == (1, 3, 16, 24)
    assert 0.3 < gmac(backbone) < 2
