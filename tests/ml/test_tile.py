"""A tile between the file's pixels and the network: grey, alpha, enlargement, depth, ensembles; tiled as whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from ml.backbones import Part, SameSize
from ml.distortions.resampling import resize
from ml.images import from_uint8, to_uint8
from ml.precision import compute
from ml.tile import FILL, TileRestorer, fill_transparent
from ml.tiling import Grid, RowBuffer, Rows, restore_bands
from tests.layers import convolution

Network = Callable[..., SameSize]
Depth = type[np.uint8] | type[np.uint16]


def restored(network: SameSize, image: Rows, *, side: int = 1000, scale: int = 1, **options: bool) -> Rows:
    """The engine on an image in memory: rows in, rows out, and the trust map as the last channel if explained."""
    position = 0

    def read(count: int) -> Rows:
        nonlocal position
        position += count
        return image[position - count : position]

    height, width, channels = image.shape
    depth = 8 * image.dtype.itemsize
    tiles = TileRestorer(
        compute=lambda batch, part: compute(network, batch, part, "fp32").result,
        size=(height, width),
        channels=channels,
        depth=depth,
        scale=scale,
        align=network.align,
        **options,
    )
    grid = Grid(side, network.radius, network.align)
    bands = list(restore_bands(RowBuffer(read), (height * scale, width * scale), grid, tiles, at_once=2))
    rows = np.concatenate([band.rows for band in bands])
    if not options.get("explained"):
        return rows
    return np.concatenate([rows, np.concatenate([band.spread for band in bands])], axis=2)


def picture(height: int, width: int, channels: int, dtype: Depth = np.uint8, seed: int = 0) -> Rows:
    """Noise, with an alpha of areas that are empty, opaque and in between."""
    generator = np.random.default_rng(seed)
    brightest = np.iinfo(dtype).max
    image: NDArray[Any] = generator.integers(0, brightest, (height, width, channels), dtype=dtype, endpoint=True)
    if channels in {2, 4}:
        alpha = np.zeros((height, width), dtype)
        alpha[height // 3 :, width // 4 :] = brightest
        alpha[height // 2 :, width // 2 :] = generator.integers(0, brightest, alpha[height // 2 :, width // 2 :].shape)
        image[..., -1] = alpha
    return image


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    unshuffle=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([1, 2, 3]),
    side=st.integers(4, 40),
    averaged=st.booleans(),
    explained=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tiled_is_whole_for_every_kind_of_image(
    random_network: Network,
    height: int,
    width: int,
    channels: int,
    dtype: Depth,
    unshuffle: int,
    scale: int,
    side: int,
    averaged: bool,
    explained: bool,
) -> None:
    network = random_network(max(unshuffle, scale), depth=2, width=4, seed=side).eval()
    image = picture(height, width, channels, dtype, seed=width)
    options: dict[str, Any] = {"scale": scale, "averaged": averaged, "explained": explained}
    side = max(side, scale * max(height, width) // 4)  # Some 25 tiles at most, for the time it takes.
    tiled, whole = (restored(network, image, side=at, **options) for at in (side, 1000))
    assert tiled.dtype == whole.dtype == dtype
    assert tiled.shape == whole.shape == (height * scale, width * scale, channels + explained)
    # Up to 1e-5 before rounding; uint8 may then round to neighbours.
    most = 1 if dtype == np.uint8 else 2
    assert np.abs(tiled.astype(int) - whole.astype(int)).max() <= most


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_network_that_changes_nothing_gives_back_every_visible_value(
    random_network: Network, channels: int, dtype: Depth
) -> None:
    network = random_network(2)
    torch.nn.init.zeros_(convolution(network, -1).weight)
    image = picture(37, 31, channels, dtype)
    result = restored(network.eval(), image, side=16)
    visible = image[..., -1] > 0 if channels in {2, 4} else np.ones((37, 31), bool)
    assert np.array_equal(result[visible], image[visible])
    if channels in {2, 4}:
        assert np.array_equal(result[..., -1], image[..., -1])


def test_colours_are_restored_alike_with_and_without_an_opaque_alpha(random_network: Network) -> None:
    network, image = random_network(2).eval(), picture(37, 31, 3)
    opaque = np.concatenate([image, np.full((37, 31, 1), 255, np.uint8)], axis=2)
    result = restored(network, opaque)
    assert np.array_equal(result[..., :3], restored(network, image))
    assert (result[..., 3] == 255).all()


def test_alpha_goes_through_the_same_network_as_a_grey_image_would(random_network: Network) -> None:
    network = random_network(2).eval()
    image = picture(37, 31, 4)
    image[..., 3] = np.random.default_rng(2).integers(1, 255, (37, 31))
    as_grey = restored(network, image[..., 3:])
    assert np.array_equal(restored(network, image)[..., 3:], as_grey)
    assert not np.array_equal(as_grey, image[..., 3:])


def test_areas_of_one_alpha_stay_exactly_as_they_are(random_network: Network) -> None:
    network = random_network(2).eval()
    image = picture(40, 40, 4)
    image[..., 3] = 0
    image[:, 20:, 3] = 255
    alpha = restored(network, image)[..., 3]
    assert (alpha[:, :18] == 0).all()
    assert (alpha[:, 22:] == 255).all()
    assert not np.isin(alpha[:, 18:22], [0, 255]).all()


def test_what_lies_below_transparency_does_not_reach_what_is_visible(random_network: Network) -> None:
    network = random_network(2).eval()
    image = picture(30, 30, 4)
    image[..., 3] = 255
    image[:, :10, 3] = 0
    black, white = image.copy(), image.copy()
    black[:, :10, :3], white[:, :10, :3] = 0, 255
    visible = np.s_[:, 10:, :3]
    assert network.radius > 3
    assert np.array_equal(restored(network, black)[visible], restored(network, white)[visible])


def test_colours_continue_below_transparency_as_the_mean_of_visible_neighbours() -> None:
    colours = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(1))
    alpha = torch.zeros(1, 40, 40)
    alpha[:, 15:25, 15:25] = 1
    filled = fill_transparent(colours, alpha)
    assert torch.equal(filled[:, 15:25, 15:25], colours[:, 15:25, 15:25])
    assert torch.equal(filled[:, :6], colours[:, :6])  # Too far from all that is visible.
    around = colours[:, 15 : 14 + FILL + 1, 15 : 14 + FILL + 1].mean(dim=(1, 2))  # What the pixel at 14, 14 sees.
    assert torch.allclose(filled[:, 14, 14], around, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_network_meets_the_enlarged_image_as_in_training(
    random_network: Network, odd_image: Tensor, scale: int
) -> None:
    network, met = random_network(4), []
    pixels = to_uint8(odd_image)

    def compute_and_note(batch: Tensor, part: Part) -> Tensor:
        met.append(batch)
        return batch[..., part.top : part.bottom, part.left : part.right]

    tiles = TileRestorer(compute_and_note, (37, 31), 3, 8, scale, network.align)
    rows = pixels.permute(1, 2, 0).numpy()
    size = 37 * scale, 31 * scale
    list(restore_bands(RowBuffer(lambda count: rows[:count]), size, Grid(1000, network.radius, 4), tiles))
    enlarged = from_uint8(to_uint8(resize(from_uint8(pixels), *size)))
    assert torch.equal(met[0][0], enlarged)


def test_sixteen_bits_are_judged_by_type_and_never_by_content(random_network: Network) -> None:
    """A dark 16-bit image whose values would fit 8 bits stays dark."""
    network = random_network(2)
    torch.nn.init.zeros_(convolution(network, -1).weight)
    dark = picture(9, 11, 3).astype(np.uint16)
    assert dark.max() < 256
    assert np.array_equal(restored(network.eval(), dark), dark)


def test_where_eight_turned_results_agree_the_map_is_black_and_elsewhere_not(random_network: Network) -> None:
    network, image = random_network(2).eval(), picture(37, 31, 3)
    assert restored(network, image, explained=True)[..., 3].max() > 0
    torch.nn.init.zeros_(convolution(network, -1).weight)
    assert restored(network, image, explained=True)[..., 3].max() == 0


def test_a_trust_map_leaves_the_image_as_it_is(random_network: Network) -> None:
    network, image = random_network(2).eval(), picture(37, 31, 3)
    assert np.array_equal(restored(network, image, explained=True)[..., :3], restored(network, image))
    assert not np.array_equal(restored(network, image, averaged=True), restored(network, image))
