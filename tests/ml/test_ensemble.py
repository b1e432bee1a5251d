"""The eight symmetries: inverses of each other, exact over tiles, and silent where a network has no doubt."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ml.backbones import SameSize, vdsr
from ml.ensemble import TRANSFORMS, ensemble, inverse, transform, trust_map
from ml.tiling import Grid
from tests.layers import convolution


@pytest.mark.parametrize("index", range(TRANSFORMS))
def test_every_transform_is_undone_by_its_inverse(index: int, odd_image: Tensor) -> None:
    assert torch.equal(inverse(transform(odd_image, index), index), odd_image)
    assert torch.equal(transform(inverse(odd_image, index), index), odd_image)


def test_the_eight_transforms_differ_and_are_closed_under_composition() -> None:
    """So they are the whole dihedral group of the square, and no subset of it."""
    image = torch.arange(25.0).reshape(1, 5, 5)
    turned = [transform(image, index) for index in range(TRANSFORMS)]
    for one, other in product(range(TRANSFORMS), repeat=2):
        assert torch.equal(turned[one], turned[other]) == (one == other)
        both = transform(turned[one], other)
        assert sum(torch.equal(both, each) for each in turned) == 1


def random_vdsr(unshuffle: int, seed: int) -> SameSize:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = vdsr(unshuffle, depth=4, width=8)
        torch.nn.init.normal_(convolution(network, -1).weight, std=0.05)
    return network


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 61),
    width=st.integers(1, 61),
    unshuffle=st.sampled_from([1, 2]),
    side=st.sampled_from([8, 13, 24]),
    seed=st.integers(0, 3),
)
def test_mean_and_spread_of_tiles_are_those_of_the_whole_image(
    height: int, width: int, unshuffle: int, side: int, seed: int
) -> None:
    network = random_vdsr(unshuffle, seed)
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    whole = ensemble(network, image, unshuffle)
    mean, std = torch.full_like(whole.mean, torch.nan), torch.full_like(whole.std, torch.nan)
    grid = Grid(side, network.radius, unshuffle)
    for band, column in product(grid.spans(0, height, height), grid.spans(0, width, width)):
        read = (..., slice(band.read_start, band.read_stop), slice(column.read_start, column.read_stop))
        part = ensemble(network, image[read], unshuffle)
        top, left = band.start - band.read_start, column.start - column.read_start
        kept = (..., slice(top, top + band.stop - band.start), slice(left, left + column.stop - column.start))
        place = (..., slice(band.start, band.stop), slice(column.start, column.stop))
        mean[place], std[place] = part.mean[kept], part.std[kept]
    assert torch.allclose(mean, whole.mean, atol=1e-5, rtol=0)
    assert torch.allclose(std, whole.std, atol=1e-5, rtol=0)
    if height * width > 1:
        assert whole.std.max() > 1e-3  # Or the test would show nothing.


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_mean_and_spread_are_those_of_the_eight_results(unshuffle: int, odd_image: Tensor) -> None:
    network = random_vdsr(unshuffle, 5)
    image = F.pad(odd_image[None], (0, -31 % unshuffle, 0, -37 % unshuffle), mode="replicate")
    with torch.no_grad():
        results = torch.stack([inverse(network(transform(image, index)), index) for index in range(TRANSFORMS)])
    eight = ensemble(network, odd_image[None], unshuffle)
    assert torch.allclose(eight.mean, results.mean(dim=0)[..., :37, :31], atol=1e-5)
    spread = results.std(dim=0, correction=0).mean(dim=1, keepdim=True)
    assert torch.allclose(eight.std, spread[..., :37, :31], atol=1e-5)


class Laplacian(nn.Module):
    """Square-symmetric, so it commutes with all eight transforms."""

    def forward(self, image: Tensor) -> Tensor:
        kernel = torch.tensor([[0.5, 1.0, 0.5], [1.0, -6.0, 1.0], [0.5, 1.0, 0.5]]).expand(3, 1, 3, 3)
        return image + 0.1 * F.conv2d(image, kernel, padding=1, groups=3).relu()


@given(height=st.integers(1, 40), width=st.integers(1, 40), align=st.sampled_from([1, 2, 4]))
@settings(deadline=None, max_examples=30)
def test_an_equivariant_network_has_no_spread(height: int, width: int, align: int) -> None:
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(width))
    eight = ensemble(Laplacian(), image, align)
    assert eight.std.max() < 1e-6
    padded = F.pad(image, (0, -width % align, 0, -height % align), mode="replicate")
    assert torch.allclose(eight.mean, Laplacian()(padded)[..., :height, :width], atol=1e-6)


def test_the_mean_of_any_network_is_equivariant(random_network: Callable[..., SameSize], odd_image: Tensor) -> None:
    network, image = random_network(2), odd_image[None, :, :36, :30]
    plain = ensemble(network, image, 2)
    for index in range(TRANSFORMS):
        turned = ensemble(network, transform(image, index), 2)
        assert torch.allclose(inverse(turned.mean, index), plain.mean, atol=1e-5)
        assert torch.allclose(inverse(turned.std, index), plain.std, atol=1e-5)


def test_the_trust_map_has_a_fixed_scale() -> None:
    levels = torch.tensor([0.0, 2.0, 4.0, 8.0, 40.0]).reshape(1, 1, 5) / 255
    assert trust_map(levels).flatten().tolist() == [0, 64, 128, 255, 255]
    assert trust_map(levels[..., :2]).flatten().tolist() == [0, 64]  # Whatever else is in the image.
