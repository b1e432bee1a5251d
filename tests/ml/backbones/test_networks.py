"""The restoration networks: their published sizes, and where their training starts."""

from collections.abc import Callable
from functools import cache, partial
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from app.api.schemas.jobs import JobOptions
from ml.backbones import BACKBONES, BackboneName, SameSize, build, dncnn, parameter_count, rcan, rdn, vdsr
from ml.backbones.rcan import ChannelAttention
from ml.backbones.rdn import Rdn

Seeded = Callable[[int], torch.Generator]
every_backbone = pytest.mark.parametrize("name", BACKBONES)
CHANNELS = {"vdsr-small": 48}  # 64 in all others.


def test_the_service_offers_what_there_is() -> None:
    """The HTTP side does not import `ml`, so it has a list of its own."""
    assert get_args(JobOptions.model_fields["backbone"].annotation) == get_args(BackboneName) == tuple(BACKBONES)


@cache
def built(name: str, unshuffle: int) -> SameSize:
    return build(name, unshuffle, 0)  # type: ignore[arg-type]  # the keys of BACKBONES


@every_backbone
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_an_untrained_network_returns_its_input(name: str, unshuffle: int, seeded: Seeded) -> None:
    network = built(name, unshuffle)
    for size in [(13, 9), (1, 1), (8, 12)]:
        image = torch.rand(2, 3, *size, generator=seeded(0))
        for training in (True, False):
            with torch.no_grad():
                assert torch.equal(network.train(training)(image), image)


def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Weights and biases of a convolution, as every one here has them."""
    return inputs * outputs * kernel**2 + outputs


def test_vdsr_has_the_papers_size() -> None:
    """20 layers of 3×3 with 64 channels; the published count without biases, for one channel, is 664,704."""
    network = vdsr(1)
    assert parameter_count(network) == conv(3, 64) + 18 * conv(64, 64) + conv(64, 3)
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 20
    weights = sum(p.numel() for p in network.parameters() if p.ndim == 4)
    assert weights - 2 * (3 - 1) * 64 * 9 == 664_704


def test_the_small_vdsr_is_half_of_it() -> None:
    small = built("vdsr-small", 1)
    assert parameter_count(small) == conv(3, 48) + 16 * conv(48, 48) + conv(48, 3)
    assert 0.45 < parameter_count(small) / parameter_count(vdsr(1)) < 0.55


def test_dncnn_has_the_papers_size_but_for_colour_and_the_merged_normalisations() -> None:
    """Published for grey: 17 convolutions, no biases but those of 15 normalisations with 64 scales and shifts each.

    Merging one into the convolution before it leaves its shift as a bias; the first and the last have biases too.
    """
    published = 64 * 9 + 15 * (64 * 64 * 9 + 2 * 64) + 64 * 9
    assert published == 556_032
    merged = published - 15 * 64 + 64 + 1
    assert merged == 555_137
    colour = merged + 2 * (3 - 1) * 64 * 9 + (3 - 1)
    network = dncnn(1)
    assert parameter_count(network) == colour
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 17
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_rcan_has_the_papers_size_but_for_the_upsampler_and_the_mean_shift() -> None:
    """Published for ×2 with colour: 15,444,667, and one more convolution of the upsampler, 15,592,379, for ×4."""
    upsampler = conv(64, 4 * 64)
    mean_shift = 2 * conv(3, 3, kernel=1)
    assert 15_444_667 + upsampler == 15_592_379
    network = built("rcan", 1)
    assert parameter_count(network) == 15_444_667 - upsampler - mean_shift
    block = 2 * conv(64, 64) + conv(64, 64 // 16, 1) + conv(64 // 16, 64, 1)
    group = 20 * block + conv(64, 64)
    assert parameter_count(network) == conv(3, 64) + 10 * group + conv(64, 64) + conv(64, 3)


def test_rdn_has_the_papers_size_but_for_the_upsampler() -> None:
    """Published for ×2 with colour: 22,123,395."""
    network = built("rdn", 1)
    assert parameter_count(network) == 22_123_395 - conv(64, 4 * 64)
    dense = sum(conv(64 + 64 * layer, 64) for layer in range(8)) + conv(64 + 8 * 64, 64, 1)
    fusion = conv(16 * 64, 64, 1) + conv(64, 64)
    assert parameter_count(network) == conv(3, 64) + conv(64, 64) + 16 * dense + fusion + conv(64, 3)


@every_backbone
@pytest.mark.parametrize("unshuffle", [2, 4])
def test_unshuffling_adds_input_and_output_channels_only(name: str, unshuffle: int) -> None:
    more = 3 * unshuffle**2 - 3
    head_and_tail = 2 * more * CHANNELS.get(name, 64) * 9 + more
    assert parameter_count(built(name, unshuffle)) == parameter_count(built(name, 1)) + head_and_tail


def test_features_neither_vanish_nor_explode_from_block_to_block(seeded: Seeded) -> None:
    values = torch.randn(1, 3, 40, 40, generator=seeded(0))
    torch.manual_seed(0)
    power = []
    body = vdsr(1).body
    assert isinstance(body, nn.Sequential)
    for module in list(body)[:-1]:
        values = module(values)
        power.append(values.square().mean().item())
    assert 0.5 < power[-1] / power[0] < 2


@every_backbone
def test_a_network_leaves_the_identity_in_few_steps(name: str, seeded: Seeded) -> None:
    """At the rates of a quick job. To turn brightness round takes features that differ from pixel to pixel; no constant
    is any better than the identity.
    """
    network = build(name, 2, seed=0)  # type: ignore[arg-type]  # the keys of BACKBONES
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    image = torch.rand(2, 3, 12, 12, generator=seeded(0))
    losses = []
    for step in range(18):
        optimizer.param_groups[0]["lr"] = 1e-3 * (step + 1) / 20
        loss = (network(image) - (1 - image)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "made",
    [
        partial(vdsr, 2, depth=4, width=8),
        partial(dncnn, 2, depth=4, width=8),
        partial(rcan, 2, groups=2, blocks=2, width=8, reduction=2),
        partial(rdn, 2, blocks=2, layers=2, growth=4, width=8),
    ],
    ids=["vdsr", "dncnn", "rcan", "rdn"],
)
def test_once_the_last_layer_has_moved_gradients_reach_every_parameter(
    made: Callable[[], SameSize], odd_image: Tensor
) -> None:
    torch.manual_seed(0)  # With others all units of so narrow an attention may be dead.
    network = made()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    network(odd_image[None]).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_the_fusion_of_dense_blocks_is_that_of_their_joined_results(seeded: Seeded) -> None:
    """The network adds them up one by one, for the memory."""
    torch.manual_seed(0)
    body = rdn(1, blocks=3, layers=2, growth=4, width=8).body
    assert isinstance(body, Rdn)
    torch.nn.init.normal_(body.tail.weight)
    image = torch.rand(1, 3, 9, 7, generator=seeded(0))
    shallow = body.head(image)
    features, results = body.second(shallow), []
    for block in body.blocks:
        features = block(features)
        results.append(features)
    expected = body.tail(shallow + body.last(body.fusion(torch.cat(results, dim=1))))
    assert torch.allclose(body(image), expected, atol=1e-5)


def test_channel_attention_weighs_each_channel_by_means_over_the_image(seeded: Seeded) -> None:
    network = rcan(1, groups=1, blocks=1, width=4, reduction=2)
    attention = network.get_submodule("body.groups.0.body.0.attention")
    assert isinstance(attention, ChannelAttention)
    features = torch.rand(2, 4, 5, 3, generator=seeded(0))
    for sample, weighted in zip(features, attention(features), strict=True):
        hidden = (attention.squeeze.weight[:, :, 0, 0] @ sample.mean(dim=(1, 2)) + attention.squeeze.bias).clamp(min=0)
        weight = 1 / (1 + torch.exp(-(attention.excite.weight[:, :, 0, 0] @ hidden + attention.excite.bias)))
        assert torch.allclose(weighted, sample * weight[:, None, None], atol=1e-6)


def test_weights_depend_on_the_seed_only() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build("vdsr", 2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = build("vdsr", 2, seed=5), build("vdsr", 2, seed=6)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.state_dict()["body.0.weight"], other.state_dict()["body.0.weight"])
