"""Tiles give what the whole image gives."""

import contextlib
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml import tiling
from ml.backbones import SameSize
from ml.precision import has_fast_bf16
from ml.tiling import restore_tiled, tiles


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32."""
    monkeypatch.setattr(tiling, "autocast", lambda on: contextlib.nullcontext())


def whole(network: SameSize, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(image[None])[0]


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    side=st.integers(1, 40),
    unshuffle=st.sampled_from([1, 2, 4]),
    depth=st.sampled_from([2, 4, 6]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("exact")
def test_tiles_give_the_untiled_result(
    random_network: Callable[..., SameSize], height: int, width: int, side: int, unshuffle: int, depth: int
) -> None:
    side = max(side, 1 + max(height, width) // 8)  # Not more than some 64 tiles, for the time it takes.
    network = random_network(unshuffle, depth=depth, width=4, seed=depth)
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * 61 + width))
    restored = restore_tiled(network, image, side=side)
    assert float((restored - whole(network, image)).abs().max()) <= 1e-5
    assert not torch.equal(restored, image)


@pytest.mark.usefixtures("exact")
def test_tiles_without_enough_overlap_would_show(
    random_network: Callable[..., SameSize], odd_image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the property above rests on: one pixel less than the network's radius is seen."""
    network = random_network(1, depth=4)
    monkeypatch.setattr(SameSize, "radius", 3)
    assert float((restore_tiled(network, odd_image, side=8) - whole(network, odd_image)).abs().max()) > 1e-5


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    side=st.integers(1, 50),
    overlap=st.integers(0, 20),
    align=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=100, deadline=None)
def test_tiles_cover_every_pixel_once_and_read_from_aligned_places(
    height: int, width: int, side: int, overlap: int, align: int
) -> None:
    cover = torch.zeros(height, width)
    for tile in tiles(height, width, side, overlap, align):
        cover[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert tile.read_top % align == 0
        assert tile.read_left % align == 0
        assert tile.read_top <= max(0, tile.top - overlap)
        assert tile.read_left <= max(0, tile.left - overlap)
        assert min(height, tile.bottom + overlap) <= tile.read_bottom <= height
        assert min(width, tile.right + overlap) <= tile.read_right <= width
    assert (cover == 1).all()


def test_an_image_no_larger_than_a_tile_is_one_tile() -> None:
    assert len(tiles(768, 31, 768, 20, 2)) == 1
    assert len(tiles(769, 31, 768, 20, 2)) == 2


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_reduced_precision_changes_less_than_a_grey_level_of_the_correction(
    random_network: Callable[..., SameSize], odd_image: Tensor, unshuffle: int
) -> None:
    network = random_network(unshuffle)
    exactly = whole(network, odd_image)
    error = (restore_tiled(network, odd_image, side=16) - exactly).abs().max()
    correction = (exactly - odd_image).abs().max()
    assert float(error) <= (0.02 if has_fast_bf16(torch.device("cpu")) else 1e-5) * float(correction) + 1e-6


def test_after_every_tile_the_caller_may_stop(random_network: Callable[..., SameSize], odd_image: Tensor) -> None:
    seen = []

    def stop_at_the_second() -> None:
        seen.append(len(seen))
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        restore_tiled(random_network(1), odd_image, side=16, after_tile=stop_at_the_second)
    assert seen == [0, 1]


def test_a_non_contiguous_image_is_restored_the_same(
    random_network: Callable[..., SameSize], odd_image: Tensor
) -> None:
    network = random_network(2)
    turned = odd_image.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    assert not turned.is_contiguous()
    assert torch.equal(restore_tiled(network, turned, side=16), restore_tiled(network, odd_image, side=16))
