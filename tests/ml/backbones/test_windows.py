"""The window of a network that pools over the whole image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.backbones import SameSize, rcan, windows
from ml.backbones.windows import Part, Window, in_windows

WINDOW = Window(core=12, margin=4)


def centred(images: Tensor) -> Tensor:
    """As sensitive to the window as can be: every pixel less the mean over all."""
    return images - images.mean(dim=(2, 3), keepdim=True)


@pytest.fixture
def network() -> SameSize:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = rcan(2, groups=1, blocks=2, width=8, reduction=2, window=WINDOW)
        torch.nn.init.normal_(network.get_parameter("body.tail.weight"), std=0.1)
    return network


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    core=st.integers(1, 20).map(lambda side: side * 2),
    margin=st.integers(0, 9),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=100, deadline=None)
def test_every_pixel_is_computed_from_the_window_of_its_own_core(
    height: int, width: int, core: int, margin: int, ends: tuple[float, float, float, float]
) -> None:
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 51 + width))
    top, left = int(ends[0] * (height - 1)), int(ends[1] * (width - 1))
    part = Part(top, top + 1 + int(ends[2] * (height - 1 - top)), left, left + 1 + int(ends[3] * (width - 1 - left)))
    result = in_windows(centred, image, part, Window(core, margin))
    assert result.shape == (2, 3, part.height, part.width)
    for y, x in {(part.top, part.left), (part.bottom - 1, part.right - 1), ((part.top + part.bottom) // 2, part.left)}:
        first_row, first_column = y // core * core, x // core * core
        seen = image[
            ...,
            max(0, first_row - margin) : first_row + core + margin,
            max(0, first_column - margin) : first_column + core + margin,
        ]
        expected = image[..., y, x] - seen.mean(dim=(2, 3))
        assert torch.allclose(result[..., y - part.top, x - part.left], expected, atol=1e-5)


def test_windows_go_through_together_but_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[tuple[int, ...]] = []

    def recorded(images: Tensor) -> Tensor:
        batches.append(tuple(images.shape))
        return images

    monkeypatch.setattr(windows, "BATCH_PIXELS", 3 * 20 * 20)
    image = torch.rand(1, 3, 12 * 6, 12 * 6)
    assert torch.equal(in_windows(recorded, image, Part(0, 72, 0, 72), WINDOW), image)
    inner = [count for count, _, height, width in batches if (height, width) == (20, 20)]
    assert inner == [3, 3, 3, 3, 3, 1]
    assert all(count * height * width <= 3 * 20 * 20 for count, _, height, width in batches)


def test_windows_outside_the_part_are_not_computed() -> None:
    seen: list[int] = []

    def recorded(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images

    image = torch.rand(1, 3, 60, 60)
    in_windows(recorded, image, Part(12, 24, 24, 48), WINDOW)
    assert sum(seen) == 2


def test_a_part_of_the_result_is_computed_as_a_part(network: SameSize, odd_image: Tensor) -> None:
    part = Part(7, 30, 12, 13)
    with torch.no_grad():
        for training in (True, False):
            whole = network.train(training)(odd_image[None])
            assert torch.allclose(network.restore_part(odd_image[None], part), whole[..., 7:30, 12:13], atol=1e-6)


def test_in_training_the_pooling_is_over_the_crop(network: SameSize, odd_image: Tensor) -> None:
    changed = odd_image.clone()
    changed[:, -1, -1] += 10
    with torch.no_grad():
        trained_on = network.train()(torch.stack([odd_image, changed]))
        in_use = network.eval()(torch.stack([odd_image, changed]))
    assert not torch.equal(trained_on[0, :, 0, 0], trained_on[1, :, 0, 0])
    assert torch.equal(in_use[0, :, 0, 0], in_use[1, :, 0, 0])


def test_an_image_of_one_window_is_restored_as_in_training(network: SameSize) -> None:
    image = torch.rand(1, 3, 12, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.eval()(image), network.train()(image))
