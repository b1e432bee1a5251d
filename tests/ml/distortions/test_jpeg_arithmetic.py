"""JPEG without bytes, against Pillow's."""

import io

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image
from torch import Tensor

from ml.distortions.jpeg_arithmetic import COSINES, compressed_by_arithmetic, quantization
from ml.images import from_uint8, jpeg

QUALITIES = (1, 10, 30, 49, 50, 75, 95, 100)


@pytest.fixture
def crops(photographs: dict[str, Tensor]) -> Tensor:
    """Of sides that are no multiples of a block's."""
    return from_uint8(torch.stack([image[:, 40:171, 60:137] for image in photographs.values()]))


@pytest.mark.parametrize("quality", QUALITIES)
def test_it_does_to_photographs_what_pillow_does(quality: int, crops: Tensor) -> None:
    """Within a grey level, but for some values of blocks in which a coefficient was rounded otherwise."""
    expected = torch.stack([jpeg(image, quality) for image in crops])
    difference = (compressed_by_arithmetic(crops, [quality] * len(crops)) - expected).abs() * 255
    lost = (crops - expected).abs().mean() * 255  # From 1.4 levels at quality 100 to 16 at 1.
    assert float(difference.mean()) < min(0.3, 0.1 * float(lost))
    assert (difference > 1.5).float().mean() < 0.06


def test_images_of_a_batch_have_qualities_of_their_own(crops: Tensor) -> None:
    batch = compressed_by_arithmetic(crops, [10, 40, 70, 100])
    alone = [compressed_by_arithmetic(crops[place : place + 1], [q])[0] for place, q in enumerate((10, 40, 70, 100))]
    assert torch.equal(batch, torch.stack(alone))


def test_tables_are_those_in_pillows_files() -> None:
    for quality, ours in zip(QUALITIES, quantization(QUALITIES), strict=True):
        file = io.BytesIO()
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization  # type: ignore[attr-defined]  # Of JPEG files alone.
        assert [tables[0], tables[1]] == ours.flatten(1).int().tolist()


def test_the_transform_is_the_orthonormal_cosine_transform(crops: Tensor) -> None:
    block = crops[0, 0, :8, :8].numpy()
    ours = (COSINES @ torch.from_numpy(block) @ COSINES.T).numpy()
    assert np.allclose(ours, scipy.fft.dctn(block, norm="ortho"), atol=1e-5)


def test_values_are_eight_bit_and_in_range(crops: Tensor) -> None:
    compressed = compressed_by_arithmetic(crops * 3 - 1, [20] * len(crops)) * 255
    assert torch.equal(compressed, compressed.round())
    assert compressed.min() >= 0
    assert compressed.max() <= 255
