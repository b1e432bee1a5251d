"""Procedural clean images."""

from collections.abc import Callable

import pytest
import torch

from ml.dead_leaves import dead_leaves

Seeded = Callable[[int], torch.Generator]


def test_an_image_depends_on_nothing_but_its_generator(seeded: Seeded) -> None:
    torch.manual_seed(1)
    first = dead_leaves(48, seeded(3), leaves=60)
    torch.manual_seed(2)
    assert torch.equal(first, dead_leaves(48, seeded(3), leaves=60))
    assert not torch.equal(first, dead_leaves(48, seeded(4), leaves=60))


@pytest.mark.parametrize("size", [17, 48])
def test_values_lie_in_range_at_any_size(size: int, seeded: Seeded) -> None:
    image = dead_leaves(size, seeded(0), leaves=80)
    assert image.shape == (3, size, size)
    assert image.min() >= 0
    assert image.max() <= 1


def test_the_canvas_is_covered_with_edges_of_many_strengths(seeded: Seeded) -> None:
    image = dead_leaves(96, seeded(0))
    steps = image.diff(dim=2).abs()
    assert float((image == 0.5).float().mean()) < 0.02  # what no leaf has covered
    assert float(steps.max()) > 0.2
    assert float(steps.median()) < 0.1  # mostly smooth, as photographs are
