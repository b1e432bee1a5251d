"""How close an image is to what a model was trained on."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.descriptor import VALUES, Descriptor, describe
from ml.distortions.blurs import gaussian_blur
from ml.distortions.noises import gaussian_noise
from ml.images import from_uint8, to_uint8
from ml.match import Gaussian, MatchReference, closeness, fingerprint, nearest, reference_in
from ml.windows import windows_of

Distorted = Callable[[str, list[str]], list[Tensor]]


@pytest.fixture(scope="module")
def distorted(photographs: dict[str, Tensor]) -> Distorted:
    """Some photographs as a noisy device and as a soft one take them, (3, 256, 256) in 8 bits."""

    def make(device: str, names: list[str]) -> list[Tensor]:
        images = []
        for name in names:
            generator = torch.Generator().manual_seed(len(name))
            image = from_uint8(photographs[name][:, 20:276, 60:316])
            image = gaussian_noise(image, 15, generator) if device == "noisy" else gaussian_blur(image, 2)
            images.append(to_uint8(image))
        return images

    return make


@pytest.fixture(scope="module")
def references(distorted: Distorted) -> dict[str, MatchReference]:
    made = {device: fingerprint(distorted(device, ["chelsea", "coffee", "rocket"])) for device in ("noisy", "soft")}
    assert all(made.values())
    return {device: reference for device, reference in made.items() if reference}


def described(image: Tensor) -> Descriptor:
    descriptor = describe(windows_of(from_uint8(image)))
    assert descriptor is not None
    return descriptor


@pytest.mark.parametrize(("device", "other"), [("noisy", "soft"), ("soft", "noisy")])
def test_an_unseen_image_is_nearest_to_the_model_of_its_own_device(
    references: dict[str, MatchReference], distorted: Distorted, device: str, other: str
) -> None:
    descriptor = described(distorted(device, ["astronaut"])[0])
    (first, own), (last, foreign) = nearest(references, descriptor)
    assert (first, last) == (device, other)
    assert own.distance < foreign.distance
    assert own.word != "far"
    assert (foreign.word, foreign.score) == ("far", 0.0)
    assert "do not rely on it" in foreign.sentence


def test_the_shape_of_the_score(references: dict[str, MatchReference]) -> None:
    """From one at the centre it never rises with distance, and is zero beyond the farthest training image."""
    reference = references["noisy"]
    centre, direction = torch.tensor(reference.mean), torch.ones(VALUES)
    steps = [closeness(reference, Descriptor(centre + step * direction, 4)) for step in np.linspace(0, 2, 60)]
    scores, distances = [match.score for match in steps], [match.distance for match in steps]
    assert scores[0] == 1.0
    assert scores[-1] == 0.0
    assert scores == sorted(scores, reverse=True)
    assert distances == sorted(distances)
    words = list(dict.fromkeys(match.word for match in steps))
    assert words == ["close", "near", "far"]


@given(size=st.sampled_from([1, 2, 4, 8, 16]), rank=st.integers(0, 32))
def test_the_score_is_the_share_of_own_images_at_least_as_far(size: int, rank: int) -> None:
    """With evenly spaced quantiles q₀ … q₃₂, an image at qᵢ has i/32 of them before it."""
    own = [1.0 + 0.1 * index for index in range(33)]
    eye = torch.eye(VALUES)[torch.tril_indices(VALUES, VALUES).unbind()].tolist()
    reference = MatchReference(1, 33, [0.0] * VALUES, eye, {str(size): own} | dict.fromkeys(others(size), [0.0] * 33))
    image = Descriptor(torch.full((VALUES,), own[rank]), size)  # At that root mean square from the centre.
    assert closeness(reference, image).score == pytest.approx(1 - rank / 32, abs=1e-4)


def others(size: int) -> set[str]:
    return {"1", "2", "4", "8", "16"} - {str(size)}


def test_an_image_of_few_windows_has_more_leave_to_stray(references: dict[str, MatchReference]) -> None:
    distances = references["noisy"].distances
    assert distances["1"][-1] > distances["4"][-1]


def test_a_card_can_hold_the_reference(references: dict[str, MatchReference], distorted: Distorted) -> None:
    reference = references["noisy"]
    stored = json.dumps({"match": asdict(reference)}, allow_nan=False)
    assert len(stored) < 20_000
    assert reference_in(json.loads(stored)) == reference


def test_cards_without_a_reference_or_of_another_version_give_none(references: dict[str, MatchReference]) -> None:
    assert reference_in({"backbone": "vdsr"}) is None
    assert reference_in({"match": None}) is None
    assert reference_in({"match": asdict(replace(references["noisy"], version=0))}) is None
    assert reference_in({"match": {"version": 99, "of": "other members"}}) is None


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_images_are_enough(distorted: Distorted, count: int) -> None:
    reference = fingerprint(distorted("noisy", ["chelsea", "coffee"][:count]))
    assert reference is not None
    own, foreign = (closeness(reference, described(distorted(kind, ["astronaut"])[0])) for kind in ("noisy", "soft"))
    assert own.distance < foreign.distance
    assert foreign.word == "far"


def test_tiny_or_single_window_training_images_give_no_reference() -> None:
    assert fingerprint([]) is None
    assert fingerprint([torch.zeros(3, 63, 500, dtype=torch.uint8)] * 3) is None
    assert fingerprint([torch.zeros(3, 100, 100, dtype=torch.uint8)]) is None
    generator = torch.Generator().manual_seed(0)
    two = [torch.randint(0, 256, (3, 100, 100), dtype=torch.uint8, generator=generator) for _ in range(2)]
    assert fingerprint(two) is not None


def test_images_that_do_not_differ_give_no_reference(distorted: Distorted) -> None:
    """Nothing says then how far an image of the same kind may lie; and a card that has such a reference is no harm."""
    (image,) = distorted("noisy", ["chelsea"])
    assert fingerprint([image] * 3) is None
    assert fingerprint([torch.full((3, 256, 256), 90, dtype=torch.uint8)]) is None


@pytest.mark.parametrize("distance", [0.0, 1e-17])
def test_a_reference_that_tells_nothing_counts_as_none(references: dict[str, MatchReference], distance: float) -> None:
    nothing = {size: [distance] * len(kept) for size, kept in references["noisy"].distances.items()}
    assert reference_in({"match": asdict(replace(references["noisy"], distances=nothing))}) is None
    assert reference_in({"match": asdict(references["noisy"])}) == references["noisy"]


def test_grey_images_match_grey_ones_and_colour_is_foreign_to_them(distorted: Distorted) -> None:
    def grey(images: list[Tensor]) -> list[Tensor]:
        return [image[1:2].expand(3, -1, -1).contiguous() for image in images]

    reference = fingerprint(grey(distorted("noisy", ["chelsea", "coffee", "rocket"])))
    assert reference is not None
    (unseen,) = distorted("noisy", ["astronaut"])
    assert closeness(reference, described(grey([unseen])[0])).word != "far"
    assert closeness(reference, described(unseen)).word == "far"


def test_the_order_of_the_training_images_does_not_matter(distorted: Distorted) -> None:
    images = distorted("soft", ["chelsea", "coffee", "rocket"])
    one, other = fingerprint(images), fingerprint(images[::-1])
    assert one is not None
    assert other is not None
    assert one.mean == pytest.approx(other.mean, abs=1e-5)
    assert one.distances["4"] == pytest.approx(other.distances["4"], rel=1e-3)


@settings(deadline=None, max_examples=20)
@given(count=st.integers(30, 200), seed=st.integers(0, 1000))
def test_the_distance_is_that_of_mahalanobis(count: int, seed: int) -> None:
    """Against numpy, with the covariance that the docstring states; the root mean square over the 25 directions."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, VALUES, generator=generator, dtype=torch.double)
    point = torch.randn(1, VALUES, generator=generator, dtype=torch.double)
    array = values.numpy()
    covariance = (20 * 0.1**2 * np.eye(VALUES) + (count - 1) * np.cov(array.T)) / (20 + count - 1)
    deviation = point.numpy()[0] - array.mean(axis=0)
    expected = np.sqrt(deviation @ np.linalg.solve(covariance, deviation) / VALUES)
    assert float(Gaussian.fitted(values).distance(point)) == pytest.approx(expected, rel=1e-6)
