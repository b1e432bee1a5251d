"""The losses of fine-tuning."""

from collections.abc import Callable

import pytest
import torch

from ml.losses import loss_between, shift_tolerant_l1

Seeded = Callable[[int], torch.Generator]


@pytest.mark.parametrize(("y", "x"), [(0, 0), (1, 0), (0, -1), (1, 1), (-1, 1)])
def test_a_shift_by_a_pixel_costs_nothing(seeded: Seeded, y: int, x: int) -> None:
    clean = torch.rand(2, 3, 19, 23, generator=seeded(0))
    restored = clean.roll((y, x), (2, 3))
    assert float(shift_tolerant_l1(restored, clean)) == 0
    assert (float(loss_between(restored, clean)) == 0) is ((y, x) == (0, 0))


def test_each_crop_finds_its_own_shift(seeded: Seeded) -> None:
    clean = torch.rand(2, 3, 19, 23, generator=seeded(1))
    restored = torch.stack([clean[0].roll(1, 1), clean[1].roll(-1, 2)])
    assert float(shift_tolerant_l1(restored, clean)) == 0


def test_a_larger_shift_is_not_forgiven(seeded: Seeded) -> None:
    clean = torch.rand(1, 3, 19, 23, generator=seeded(2))
    assert float(shift_tolerant_l1(clean.roll(2, 3), clean)) > 0.1


def test_it_is_never_above_the_plain_loss_of_the_inner_part(seeded: Seeded) -> None:
    restored, clean = torch.rand(2, 4, 3, 19, 23, generator=seeded(3))
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert shift_tolerant_l1(restored, clean) <= loss_between(restored[inner], clean[inner]) + 1e-6


def test_its_gradient_pulls_towards_the_nearest_shift(seeded: Seeded) -> None:
    clean = torch.rand(1, 3, 19, 23, generator=seeded(4))
    restored = (clean.roll(1, 2) + 0.01).requires_grad_()
    shift_tolerant_l1(restored, clean).backward()
    assert restored.grad is not None
    assert bool((restored.grad[..., 1:-1, 1:-1] > 0).all())
