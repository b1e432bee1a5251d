"""Over-sharpening overshoots at edges and nowhere else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.filters import unsharp_mask as scikit_images
from torch import Tensor

from ml.distortions import DISTORTIONS
from ml.distortions.sharpening import unsharp_mask

Seeded = Callable[[int], torch.Generator]


def edge() -> Tensor:
    image = torch.full((3, 37, 41), 0.3)
    image[:, :, 20:] = 0.6
    return image


@pytest.mark.parametrize(("amount", "sigma"), [(0.5, 0.8), (1.5, 1.0), (3.0, 2.5)])
def test_edges_overshoot_on_both_sides_and_flat_ground_stays(amount: float, sigma: float) -> None:
    row = unsharp_mask(edge(), amount, sigma)[0, 18]
    assert float(row[19]) == pytest.approx(float(row.min()))
    assert float(row[20]) == pytest.approx(float(row.max()))
    assert float(row[19]) < 0.3 - 0.05 * amount
    assert float(row[20]) > 0.6 + 0.05 * amount
    assert torch.allclose(row[:8], torch.tensor(0.3), atol=1e-5)
    assert torch.allclose(row[-8:], torch.tensor(0.6), atol=1e-5)


def test_twice_the_amount_is_twice_the_overshoot() -> None:
    once, twice = (unsharp_mask(edge(), amount, 1.0).max() - 0.6 for amount in (1, 2))
    assert float(twice) == pytest.approx(2 * float(once), rel=1e-4)


def test_it_is_scikit_images_unsharp_mask(odd_image: Tensor) -> None:
    array = odd_image.permute(1, 2, 0).double().numpy()
    expected = scikit_images(array, radius=1.5, amount=2.0, channel_axis=2, preserve_range=True)
    ours = unsharp_mask(odd_image, 2.0, 1.5).permute(1, 2, 0).numpy()
    # Its Gaussian ends at 4σ and reflects at the border, ours at 3σ.
    assert np.allclose(ours[6:-6, 6:-6], expected[6:-6, 6:-6], atol=0.02)


def test_the_mean_brightness_is_kept(odd_image: Tensor, seeded: Seeded) -> None:
    sharpened = DISTORTIONS["sharpen_halo"].at(odd_image, 1.0, seeded(0))
    assert float(sharpened.mean()) == pytest.approx(float(odd_image.mean()), abs=0.01)
