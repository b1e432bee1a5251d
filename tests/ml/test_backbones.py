"""The restoration networks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ml.backbones import BACKBONES, SameSize, build, parameter_count, receptive_radius, vdsr

Seeded = Callable[[int], torch.Generator]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
@pytest.mark.parametrize("size", [(37, 31), (1, 1), (8, 12)])
def test_an_untrained_network_returns_its_input(
    name: str, unshuffle: int, size: tuple[int, int], seeded: Seeded
) -> None:
    image = torch.rand(2, 3, *size, generator=seeded(0))
    assert torch.equal(build(name, unshuffle, 0)(image), image)  # type: ignore[arg-type]


def test_vdsr_has_the_papers_size() -> None:
    """20 layers of 3×3 with 64 channels: 3·64·9 + 18·64·64·9 + 64·3·9 weights and 19·64 + 3 biases."""
    network = vdsr(1)
    assert parameter_count(network) == 3 * 64 * 9 + 18 * 64 * 64 * 9 + 64 * 3 * 9 + 19 * 64 + 3
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 20


def test_features_neither_vanish_nor_explode_from_block_to_block(seeded: Seeded) -> None:
    values = torch.randn(1, 3, 40, 40, generator=seeded(0))
    torch.manual_seed(0)
    power = []
    for module in list(vdsr(1).body)[:-1]:
        values = module(values)
        power.append(values.square().mean().item())
    assert 0.5 < power[-1] / power[0] < 2


def test_a_network_leaves_the_identity_in_few_steps(seeded: Seeded) -> None:
    """The plain stack of twenty layers did not."""
    network = build("vdsr", 2, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    clean = torch.rand(1, 3, 1, 1, generator=seeded(0)).expand(1, 3, 16, 16)
    losses = []
    for _ in range(12):
        loss = (network(clean + 0.2) - clean).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


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


def test_the_body_sees_each_cell_of_unshuffled_pixels_as_channels(seeded: Seeded) -> None:
    """An identity body doubles the image, whatever the grouping; one that keeps one channel keeps a pixel a cell."""
    image = torch.rand(1, 3, 37, 31, generator=seeded(0))
    assert torch.equal(SameSize(nn.Identity(), 2)(image), image * 2)
    keep = nn.Conv2d(12, 12, 1, bias=False)
    with torch.no_grad():
        keep.weight.zero_()
        keep.weight[0, 0] = 1
        residual = SameSize(keep, 2)(image) - image
    assert torch.allclose(residual[:, 0, ::2, ::2], image[:, 0, ::2, ::2], atol=1e-6)
    assert residual[:, 0, 1::2].abs().max() == 0
    assert residual[:, 1:].abs().max() == 0


@pytest.mark.parametrize(("unshuffle", "depth"), [(1, 2), (1, 6), (2, 2), (2, 4), (4, 4)])
def test_the_receptive_radius_is_the_farthest_pixel_that_matters(unshuffle: int, depth: int) -> None:
    network = vdsr(unshuffle, depth=depth, width=4).double()
    for parameter in network.parameters():  # With positive weights no path is cut by a ReLU or cancelled by another.
        parameter.data = torch.full_like(parameter, 0.1)
    side = 8 * (depth + 2) * unshuffle // 2
    middle = side // 2 // unshuffle * unshuffle
    image = torch.full((1, 3, side, side), 0.5, dtype=torch.float64)
    farthest = 0
    with torch.no_grad():
        before = network(image)
        for y, x in [(middle + dy, middle + dx) for dy in range(unshuffle) for dx in range(unshuffle)]:
            changed = image.clone()
            changed[0, 1, y, x] += 1
            rows, columns = ((network(changed) - before).abs().sum(dim=(0, 1)) > 0).nonzero(as_tuple=True)
            farthest = max(farthest, *((rows - y).abs().tolist()), *((columns - x).abs().tolist()))
    assert farthest == receptive_radius(network)


def test_gradients_reach_every_parameter(random_network: Callable[..., SameSize], odd_image: Tensor) -> None:
    network = random_network(2)
    network(odd_image[None]).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
