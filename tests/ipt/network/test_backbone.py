"""The backbone: identity at start, any multiple size, stated costs, attention as in the paper."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from ipt.network.backbone import Backbone, ChannelAttention, GatedConvolution, GatedFeedForward, _fold, _unfold
from ipt.network.config import PRESETS, preset_config

SHAPES = (
    {},
    {"blocks": (2,), "patch": 3},
    {"blocks": (1, 1, 2), "patch": 1, "head_width": 8},
    {"blocks": (1, 2), "attention_levels": 0, "expansion": 0.5},
    {"blocks": (1, 1), "attention_levels": 2},
)


@pytest.mark.parametrize("changes", SHAPES)
def test_starts_as_the_identity(make_config, changes):
    config = make_config(**changes)
    image = torch.rand(2, 3, 2 * config.size_multiple, 3 * config.size_multiple)
    assert torch.equal(Backbone(config)(image), image)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_start_as_the_identity(preset):
    config = preset_config(preset, ("a",), 1, ("*",))
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(Backbone(config)(image), image)


@pytest.mark.parametrize("changes", SHAPES)
def test_any_multiple_of_the_size_keeps_its_shape(make_config, fill_parameters, changes):
    config = make_config(**changes)
    backbone = fill_parameters(Backbone(config), 0)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
    def keeps(batch, rows, columns):
        image = torch.rand(batch, 3, rows * config.size_multiple, columns * config.size_multiple)
        restored = backbone(image)
        assert restored.shape == image.shape
        assert restored.dtype == torch.float32
        assert torch.isfinite(restored).all()
        assert not torch.equal(restored, image)

    keeps()


@pytest.mark.parametrize("changes", SHAPES)
def test_no_statistics_over_the_batch(make_config, fill_parameters, changes):
    config = make_config(**changes)
    backbone = fill_parameters(Backbone(config), 1).train()
    side = 3 * config.size_multiple
    images = torch.rand(4, 3, side, side) * torch.tensor([1, 0.1, 3, 1]).view(4, 1, 1, 1)
    together = backbone(images)
    for number in range(4):
        alone = backbone(images[number : number + 1])[0]
        torch.testing.assert_close(alone, together[number], atol=1e-4, rtol=1e-4)


def without_global_parts(monkeypatch):
    """Channels are not scaled by means over the image, and attend to themselves."""

    def convolved(self, x):
        return self.local(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def gate(self, x):
        first, second = convolved(self, self.expand(x)).chunk(2, -1)
        return self.project(first * second)

    def attend(self, x):
        return self.project(convolved(self, self.query_key_value(x)).chunk(3, -1)[2])

    monkeypatch.setattr(GatedConvolution, "forward", gate)
    monkeypatch.setattr(ChannelAttention, "forward", attend)


@pytest.mark.parametrize("changes", [*SHAPES, {"blocks": (1, 2, 1), "patch": 1}])
def test_reach_is_how_far_a_pixel_sees_through_convolutions(make_config, fill_parameters, monkeypatch, changes):
    without_global_parts(monkeypatch)
    config = make_config(**changes)
    backbone = fill_parameters(Backbone(config), 0).double()
    reach, multiple = backbone.reach, config.size_multiple
    middle = -(-reach // multiple) * multiple  # so far from either side, at the start of a position
    image = torch.rand(1, 3, multiple, 2 * middle + multiple, dtype=torch.float64, requires_grad=True)
    restored = backbone(image)
    far = []
    for column in range(middle, middle + multiple):
        (seen,) = torch.autograd.grad(restored[0, :, :, column].sum(), image, retain_graph=True)
        columns = seen.abs().sum((0, 1, 2)).nonzero().flatten()
        far += [column - columns[0].item(), columns[-1].item() - column]
    assert max(far) == reach - 1  # of the pixel that lies worst; no pixel sees one at a distance of `reach`


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_see_no_more_than_tiles_can_hold(preset):
    with torch.device("meta"):
        assert 16 < Backbone(preset_config(preset, ("a",), 1, ("*",))).reach < 300


@pytest.mark.parametrize(("preset", "limit"), [("tiny", 2), ("small", 16), ("base", 80)])
def test_presets_keep_to_their_cost_in_gmac_at_256(preset, limit):
    with torch.device("meta"):
        backbone = Backbone(preset_config(preset, ("a",), 1, ("*",)))
        counter = FlopCounterMode(display=False)
        with counter:
            backbone(torch.empty(1, 3, 256, 256))
    gmac = counter.get_total_flops() / 2e9
    assert limit / 4 < gmac <= limit  # below a quarter: not the class that its name promises


def test_presets_grow():
    sizes = []
    for preset in ("tiny", "small", "base"):
        with torch.device("meta"):
            backbone = Backbone(preset_config(preset, ("a",), 1, ("*",)))
        sizes.append(sum(p.numel() for p in backbone.parameters()))
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_channel_attention_is_softmax_of_cosines_between_channels(fill_parameters, heads):
    """Zamir et al. 2022, eq. 1, with query and key normalised over positions."""
    attention = fill_parameters(ChannelAttention(8, heads), 2)
    x = torch.randn(2, 6, 5, 8)
    mixed = attention.local(attention.query_key_value(x).permute(0, 3, 1, 2)).flatten(2)  # (B, 3C, HW)
    query, key, value = (part.unflatten(1, (heads, -1)) for part in mixed.chunk(3, dim=1))
    cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-1, -2)
    weights = (cosine * attention.temperature.view(heads, 1, 1)).softmax(-1)
    expected = attention.project((weights @ value).flatten(1, 2).transpose(1, 2)).view(x.shape)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


def test_attention_of_a_black_image_is_finite(make_config, fill_parameters):
    config = make_config()
    backbone = fill_parameters(Backbone(config), 3)
    with torch.no_grad():
        for block in backbone.modules():
            if isinstance(block, ChannelAttention):
                block.query_key_value.weight.zero_()
                block.query_key_value.bias.zero_()
                block.local.bias.zero_()
    image = torch.zeros(1, 3, 8, 8, requires_grad=True)
    restored = backbone(image)
    restored.sum().backward()
    assert torch.isfinite(restored).all()
    assert torch.isfinite(image.grad).all()


def test_one_half_of_the_feed_forward_part_gates_the_other(fill_parameters):
    part = fill_parameters(GatedFeedForward(4, 6), 4)
    x = torch.randn(2, 5, 3, 4)
    first, second = part.local(part.expand(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).chunk(2, -1)
    torch.testing.assert_close(part(x), part.project(first * second))


def test_a_gated_convolution_scales_channels_by_their_means(fill_parameters):
    mixer = fill_parameters(GatedConvolution(4), 4)
    x = torch.randn(2, 5, 3, 4)
    first, second = mixer.local(mixer.expand(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).chunk(2, -1)
    gated = first * second
    expected = mixer.project(gated * mixer.scale(gated.mean((1, 2))).view(2, 1, 1, 4))
    torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize(("attending", "kinds"), [(0, "ccc"), (1, "cca"), (3, "aaa")])
def test_the_coarsest_levels_attend(make_config, attending, kinds):
    backbone = Backbone(make_config(blocks=(1, 1, 1), attention_levels=attending))
    stages = [*backbone.encoder, backbone.middle]
    assert "".join("a" if isinstance(stage[0].mixer, ChannelAttention) else "c" for stage in stages) == kinds
    assert [type(stage[0].mixer) for stage in backbone.decoder] == [type(stage[0].mixer) for stage in stages[:-1]]


def test_fold_gathers_2_x_2_neighbourhoods_and_unfold_is_its_inverse():
    x = torch.randn(2, 4, 6, 3)
    folded = _fold(x)
    assert folded.shape == (2, 2, 3, 12)
    torch.testing.assert_close(folded[1, 1, 2], x[1, 2:4, 4:6].reshape(-1), atol=0, rtol=0)
    assert torch.equal(_unfold(folded), x)
