"""Windows of an image that streams past."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.windows import MOST, SIDE, WindowSampler, positions, windows_of

sides = st.integers(1, 700)


@given(height=st.integers(1, 100_000), width=st.integers(1, 100_000))
def test_windows_are_few_and_lie_in_the_image(height: int, width: int) -> None:
    corners = positions(height, width)
    assert 1 <= len(corners) <= MOST
    assert len(set(corners)) == len(corners)
    for top, left in corners:
        assert 0 <= top <= height - min(SIDE, height)
        assert 0 <= left <= width - min(SIDE, width)


@given(height=st.integers(SIDE, 5000), width=st.integers(SIDE, 5000))
def test_windows_never_overlap(height: int, width: int) -> None:
    corners = positions(height, width)
    for index, (top, left) in enumerate(corners):
        for other_top, other_left in corners[:index]:
            assert abs(top - other_top) >= SIDE or abs(left - other_left) >= SIDE


@settings(deadline=None, max_examples=40)
@given(height=sides, width=sides, cuts=st.lists(st.integers(0, 700), max_size=6), backwards=st.booleans())
def test_windows_are_the_same_however_the_rows_are_cut(
    height: int, width: int, cuts: list[int], *, backwards: bool
) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))
    sampler = WindowSampler(height, width)
    edges = sorted({0, height, *(cut for cut in cuts if cut < height)})
    strips = list(pairwise(edges))
    for top, bottom in reversed(strips) if backwards else strips:
        sampler.add_rows(top, image[:, top:bottom])
    cut_out = [image[:, top : top + SIDE, left : left + SIDE] for top, left in positions(height, width)]
    assert torch.equal(sampler.windows(), torch.stack(cut_out))
    assert torch.equal(windows_of(image), torch.stack(cut_out))


def test_a_large_image_takes_no_more_memory_than_sixteen_windows() -> None:
    assert WindowSampler(100_000, 100_000).windows().numel() == MOST * 3 * SIDE * SIDE
