"""How far networks see: exactly as far as their `radius` says, from tiles that start where `align` says."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ml.backbones import BACKBONES, SameSize, dncnn, rcan, rdn, vdsr
from ml.backbones.reach import reach
from ml.backbones.windows import Window

SMALL: dict[str, Callable[[int], SameSize]] = {
    "vdsr": lambda unshuffle: vdsr(unshuffle, depth=4, width=4),
    "vdsr-small": lambda unshuffle: vdsr(unshuffle, depth=6, width=4),
    "dncnn": lambda unshuffle: dncnn(unshuffle, depth=3, width=4),
    "rcan": lambda unshuffle: rcan(
        unshuffle, groups=1, blocks=2, width=4, reduction=2, window=Window(core=12, margin=4)
    ),
    "rdn": lambda unshuffle: rdn(unshuffle, blocks=2, layers=2, growth=3, width=4),
}


def test_every_backbone_is_tested_here() -> None:
    assert SMALL.keys() == BACKBONES.keys()


def whole(network: SameSize, image: Tensor) -> Tensor:
    with torch.no_grad():
        restored: Tensor = network(image[None])
    return restored[0]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_the_radius_is_the_farthest_pixel_beyond_an_aligned_tile_that_matters(name: str, unshuffle: int) -> None:
    """Shown by the gradient of a tile's pixels: nothing beyond the radius has one, and something at the radius has."""
    network = SMALL[name](unshuffle).eval().double()
    for parameter in network.parameters():  # With positive weights no path is cut by a ReLU or cancelled by another.
        parameter.data = torch.full_like(parameter, 0.1)
    align, radius = network.align, network.radius
    first = -(-(radius + 3) // align) * align
    last = first + align
    image = torch.full((1, 3, last + radius + 5, last + radius + 7), 0.5, dtype=torch.float64, requires_grad=True)
    network(image)[..., first:last, first:last].sum().backward()
    assert image.grad is not None
    rows, columns = image.grad.abs().sum(dim=(0, 1)).nonzero(as_tuple=True)
    seen = [int(extreme) for extreme in (rows.min(), rows.max(), columns.min(), columns.max())]
    assert seen == [first - radius, last - 1 + radius] * 2


@pytest.mark.parametrize(("name", "reach_of_body"), [("vdsr", 20), ("vdsr-small", 18), ("dncnn", 17), ("rdn", 132)])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_the_radius_at_the_published_size_is_the_length_of_the_longest_path(
    name: str, reach_of_body: int, unshuffle: int
) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](unshuffle)  # type: ignore[index]  # the keys of BACKBONES
    assert (network.radius, network.align) == (reach_of_body * unshuffle, unshuffle)


def test_without_its_window_rcan_would_see_413_pixels_far_by_its_convolutions_alone() -> None:
    with torch.device("meta"):
        network = rcan(1)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert sum(reach(convolution) for convolution in convolutions) == 413  # All 3×3 are in series, 1×1 see no further.


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_rcan_sees_the_margin_of_its_window(unshuffle: int) -> None:
    with torch.device("meta"):
        network = rcan(unshuffle)
    assert network.window is not None
    assert (network.radius, network.align) == (network.window.margin, network.window.core)


def test_paths_in_series_add_up_and_dilation_stretches_them() -> None:
    assert reach(nn.Sequential(nn.Conv2d(1, 1, 5, dilation=2), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3))) == 5


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 1, 3, stride=2)])
def test_a_layer_whose_reach_is_unknown_or_without_bound_is_refused(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=type(layer).__name__):
        SameSize(nn.Sequential(nn.Conv2d(3, 1, 3), layer), 1).radius  # noqa: B018 - asking computes it


@cache
def random_network(name: str, unshuffle: int) -> SameSize:
    with torch.random.fork_rng():
        torch.manual_seed(unshuffle)
        network = SMALL[name](unshuffle).eval()
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return network


@given(
    name=st.sampled_from(list(SMALL)),
    unshuffle=st.sampled_from([1, 2, 4]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_aligned_tile_read_with_its_radius_is_what_the_whole_image_gives(
    name: str, unshuffle: int, height: int, width: int, place: tuple[float, float, float, float]
) -> None:
    network = random_network(name, unshuffle)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * 71 + width))
    expected = whole(network, image)
    assert not torch.equal(expected, image)
    (top, bottom), (left, right) = (
        aligned(length, network.align, *ends) for length, ends in ((height, place[:2]), (width, place[2:]))
    )
    overlap = -(-network.radius // network.align) * network.align
    read_top, read_left = max(0, top - overlap), max(0, left - overlap)
    read = image[:, read_top : bottom + overlap, read_left : right + overlap]
    result = whole(network, read)[:, top - read_top : bottom - read_top, left - read_left : right - read_left]
    assert result.shape[1:] == (bottom - top, right - left)
    assert float((result - expected[:, top:bottom, left:right]).abs().max()) <= 1e-5


def aligned(length: int, align: int, start: float, end: float) -> tuple[int, int]:
    """A stretch of an image's side that starts at a multiple of `align` and ends at one, or at the image's end."""
    cells = -(-length // align)
    first = min(cells - 1, int(start * cells))
    last = first + 1 + min(cells - first - 1, int(end * (cells - first)))
    return first * align, min(length, last * align)
