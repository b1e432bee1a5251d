"""The geometry of tiles, and the stream of bands."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.backbones import SameSize
from ml.precision import has_fast_bf16
from ml.tiling import (
    FAR_RADIUS,
    TILE,
    WIDE_TILE,
    Grid,
    OutOfMemory,
    Piece,
    RowBuffer,
    Rows,
    Span,
    grid_for,
    restore_bands,
    restore_tiled,
)

sides = st.integers(1, 90)
grids = st.builds(Grid, side=st.integers(1, 50), radius=st.integers(0, 20), align=st.sampled_from([1, 2, 4, 12]))


def rows_of(image: Rows) -> RowBuffer:
    """A buffer over an image that refuses to give a row twice."""
    position = 0

    def read(count: int) -> Rows:
        nonlocal position
        position += count
        assert position <= len(image)
        return image[position - count : position]

    return RowBuffer(read)


def picture(height: int, width: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(length=sides, grid=grids)
@settings(max_examples=200, deadline=None)
def test_spans_cover_every_pixel_once_and_read_a_radius_further_from_aligned_places(length: int, grid: Grid) -> None:
    cover = np.zeros(length, int)
    for span in grid.spans(0, length, length):
        cover[span.start : span.stop] += 1
        assert span.start % grid.align == span.read_start % grid.align == 0
        assert span.read_start <= max(0, span.start - grid.radius)
        assert min(length, span.stop + grid.radius) <= span.read_stop <= length
    assert (cover == 1).all()


@given(height=sides, width=sides, grid=grids, at_once=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_bands_put_together_what_tiles_made_and_read_every_row_once(
    height: int, width: int, grid: Grid, at_once: int
) -> None:
    image = picture(height, width)
    shares: list[float] = []

    def negative(rows: RowBuffer, band: Span, columns: list[Span]) -> list[Piece]:
        assert 1 <= len(columns) <= at_once
        assert len({column.shape for column in columns}) == 1
        read = rows.window(band.read_start, band.read_stop)
        kept = read[band.start - band.read_start :][: band.stop - band.start]
        return [Piece(255 - kept[:, column.start : column.stop]) for column in columns]

    bands = restore_bands(rows_of(image), (height, width), grid, negative, at_once=at_once, after_tiles=shares.append)
    assert np.array_equal(np.concatenate([band.rows for band in bands]), 255 - image)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_where_memory_runs_out_tiles_halve_and_the_image_goes_on() -> None:
    image, sides = picture(200, 150), []

    def small_ones_only(rows: RowBuffer, band: Span, columns: list[Span]) -> list[Piece]:
        sides.append(max(band.stop - band.start, *(column.stop - column.start for column in columns)))
        if sides[-1] > 40 or len(columns) > 1:
            raise OutOfMemory("too large")
        kept = rows.window(band.read_start, band.read_stop)[band.start - band.read_start :][: band.stop - band.start]
        return [Piece(kept[:, columns[0].start : columns[0].stop])]

    grid = Grid(128, 8, 2)
    bands = list(restore_bands(rows_of(image), (200, 150), grid, small_ones_only, at_once=2))
    assert np.array_equal(np.concatenate([band.rows for band in bands]), image)
    assert sides[:4] == [128, 128, 64, 32]  # One tile at a time first, then smaller ones.
    assert set(sides[4:]) <= set(range(1, 33))


def test_where_the_smallest_tiles_need_too_much_memory_it_is_said() -> None:
    def never(rows: RowBuffer, band: Span, columns: list[Span]) -> list[Piece]:
        raise OutOfMemory("too large")

    with pytest.raises(OutOfMemory):
        list(restore_bands(rows_of(picture(50, 50)), (50, 50), Grid(64, 2, 1), never))


def test_other_errors_end_the_image_at_once() -> None:
    calls = []

    def broken(rows: RowBuffer, band: Span, columns: list[Span]) -> list[Piece]:
        calls.append(band)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(restore_bands(rows_of(picture(50, 50)), (50, 50), Grid(16, 2, 1), broken))
    assert len(calls) == 1


def test_a_buffer_holds_no_more_rows_than_two_windows() -> None:
    image = picture(1000, 3)
    buffer = rows_of(image)
    for top in range(0, 960, 20):
        assert np.array_equal(buffer.window(max(0, top - 5), top + 25), image[max(0, top - 5) : top + 25])
        assert buffer._rows is not None
        assert len(buffer._rows) <= 60


@pytest.mark.parametrize(("radius", "side"), [(42, TILE), (FAR_RADIUS, TILE), (FAR_RADIUS + 1, WIDE_TILE)])
def test_a_network_that_sees_far_gets_wider_tiles(radius: int, side: int) -> None:
    assert grid_for(radius, 2).side == side


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    side=st.integers(1, 40),
    unshuffle=st.sampled_from([1, 2, 4]),
    depth=st.sampled_from([2, 4, 6]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tiles_give_the_untiled_result(
    random_network: Callable[..., SameSize], height: int, width: int, side: int, unshuffle: int, depth: int
) -> None:
    side = max(side, 1 + max(height, width) // 8)  # Not more than some 64 tiles, for the time it takes.
    network = random_network(unshuffle, depth=depth, width=4, seed=depth).eval()
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * 61 + width))
    with torch.inference_mode():
        whole = network(image[None])[0]
    tiled = restore_tiled(network, image, side=side)
    assert float((tiled - whole).abs().max()) <= (2 / 255 if has_fast_bf16(torch.device("cpu")) else 1e-5)
    assert not torch.equal(tiled, image)


def test_tiles_without_enough_overlap_would_show(odd_image: Tensor, random_network: Callable[..., SameSize]) -> None:
    """What the property above rests on: one pixel less than the receptive radius is seen."""
    network = random_network(1, depth=4).eval()
    with torch.inference_mode():
        whole = network(odd_image[None])[0]
    network.__class__ = type("Shortsighted", (SameSize,), {"radius": 3})
    assert float((restore_tiled(network, odd_image, side=8) - whole).abs().max()) > 1e-5


def test_a_non_contiguous_image_is_restored_the_same(
    random_network: Callable[..., SameSize], odd_image: Tensor
) -> None:
    network = random_network(2).eval()
    turned = odd_image.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    assert not turned.is_contiguous()
    assert torch.equal(restore_tiled(network, turned, side=16), restore_tiled(network, odd_image, side=16))
