"""What the nodes do not tell of is seen in the difference itself, and the known distortions show none of it."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ml.distortions import DISTORTIONS
from ml.images import from_uint8, to_uint8
from ml.relation import MOST_DISPLACED, MOST_IN_AREAS
from ml.residual import area_share, displacement_share

Seeded = Callable[[int], torch.Generator]


@pytest.fixture
def patches(photographs: dict[str, Tensor]) -> Tensor:
    """Eight textured squares of 96 pixels."""
    corners = {
        "astronaut": [(20, 150), (150, 200)],
        "chelsea": [(60, 90), (120, 200)],
        "coffee": [(100, 150), (180, 300)],
    }
    squares = [
        photographs[name][:, top : top + 96, left : left + 96]
        for name, places in corners.items()
        for top, left in places
    ]
    return from_uint8(torch.stack(squares))


def moved(image: Tensor, move: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Resampled at (x + dx, y + dy), where `move` says both in pixels for coordinates from −1 to 1."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    dx, dy = move(x, y)
    grid = torch.stack([x + dx * 2 / width, y + dy * 2 / height], dim=-1)[None].expand(len(image), -1, -1, -1)
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=True)


def vignette(image: Tensor) -> Tensor:
    line = torch.linspace(-1, 1, image.shape[-1])
    return image * (1 - 0.5 * (line[:, None] ** 2 + line**2) / 2)


CHANGED_AREAS: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": lambda image: image + 0.1,
    "exposure": lambda image: 0.8 * image,
    "colour cast": lambda image: image * torch.tensor([1.15, 1.0, 0.85])[:, None, None],
    "tone curve": lambda image: image**1.5,
    "inversion": lambda image: 1 - image,
    "vignette": vignette,
    "haze": lambda image: 0.6 * image + 0.3,
}
DISPLACED: dict[str, Callable[[Tensor], Tensor]] = {
    "shift": lambda image: moved(image, lambda x, y: (torch.full_like(x, 1.5), torch.full_like(x, 0.7))),
    "waves": lambda image: moved(image, lambda x, y: (2 * torch.sin(0.8 * y + 1), 2 * torch.cos(0.8 * x))),
    # About a corner, as most patches of a larger image see a turn.
    "turn": lambda image: moved(
        image, lambda x, y: (-(y + 1.5) * 48 * math.radians(2), (x + 1.5) * 48 * math.radians(2))
    ),
}


def as_stored(image: Tensor) -> Tensor:
    return from_uint8(to_uint8(image))


@pytest.mark.parametrize("name", CHANGED_AREAS)
def test_changes_of_whole_areas_are_in_their_means(name: str, patches: Tensor) -> None:
    assert area_share(patches, as_stored(CHANGED_AREAS[name](patches))) > MOST_IN_AREAS


@pytest.mark.parametrize("name", DISPLACED)
def test_content_out_of_place_is_explained_by_a_displacement(name: str, patches: Tensor) -> None:
    distorted = as_stored(DISPLACED[name](patches))
    assert displacement_share(patches, distorted) > MOST_DISPLACED
    assert area_share(patches, distorted) < MOST_IN_AREAS


@pytest.mark.parametrize("strength", [0.4, 0.8])
@pytest.mark.parametrize("name", DISTORTIONS)
def test_known_distortions_do_neither(name: str, strength: float, patches: Tensor, seeded: Seeded) -> None:
    distorted = as_stored(DISTORTIONS[name].at(patches, strength, seeded(0)))
    assert area_share(patches, distorted) < MOST_IN_AREAS - 0.1
    assert displacement_share(patches, distorted) < MOST_DISPLACED - 0.1


def test_white_noise_has_of_its_energy_one_part_in_256_in_areas(seeded: Seeded) -> None:
    flat = torch.full((8, 3, 96, 96), 0.5)
    noisy = flat + 0.1 * torch.randn(flat.shape, generator=seeded(0))
    assert area_share(flat, noisy) == pytest.approx(1 / 256, rel=0.15)
    assert displacement_share(flat, noisy) < 0.01  # A flat image has nothing that could move.


@pytest.mark.parametrize("size", [(48, 64), (49, 49), (37, 31), (17, 95)])
def test_an_area_counts_by_its_pixels(size: tuple[int, int], seeded: Seeded) -> None:
    """White noise has one part in as many as an area has pixels, so its share is areas by pixels, whatever the size."""
    flat = torch.full((24, 3, *size), 0.5)
    noisy = flat + 0.1 * torch.randn(flat.shape, generator=seeded(0))
    areas = math.ceil(size[0] / 16) * math.ceil(size[1] / 16)
    assert area_share(flat, noisy) == pytest.approx(areas / (size[0] * size[1]), rel=0.15)


def test_a_difference_in_the_thinnest_areas_alone_is_no_more_than_all_of_it() -> None:
    flat = torch.full((2, 3, 49, 49), 0.5)
    changed = flat.clone()
    changed[..., 48, :] = 1.0  # The one row of the areas at the lower border.
    assert area_share(flat, changed) == pytest.approx(1, abs=1e-3)
    assert area_share(flat, changed) <= 1


def test_equal_images_have_no_share_of_anything(patches: Tensor) -> None:
    assert area_share(patches, patches) == 0
    assert displacement_share(patches, patches) == 0


def test_a_small_displacement_is_explained_whole(patches: Tensor) -> None:
    """Of half a pixel; that is what the linear theory is for."""
    shifted = moved(patches, lambda x, y: (torch.full_like(x, 0.5), torch.zeros_like(x)))
    assert displacement_share(patches, shifted) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("size", [(1, 1), (9, 30), (64, 22)])
def test_strips_of_any_width_have_finite_shares(size: tuple[int, int], seeded: Seeded) -> None:
    clean = torch.rand(2, 3, *size, generator=seeded(0))
    assert 0 <= area_share(clean, 1 - clean) <= 1
    assert 0 <= displacement_share(clean, 1 - clean) <= 1
