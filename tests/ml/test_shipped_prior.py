"""The prior that ships with the project."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from ml.backbones import build
from ml.distortions import DISTORTIONS, PAPERS, distort
from ml.distortions.noises import gaussian_noise
from ml.evaluate import mean, quality_of, quality_of_input
from ml.images import from_uint8, to_uint8
from ml.pairs import TargetPair
from ml.prior import SHIPPED, Prior, load_prior, theta_name
from ml.prior_training import SHIPPED_NETWORKS, network_named
from ml.relation import relate

Seeded = Callable[[int], torch.Generator]


@cache
def shipped() -> Prior:
    return load_prior()


def test_the_bundle_is_small_enough_to_ship() -> None:
    assert SHIPPED.exists()
    assert SHIPPED.stat().st_size <= 40 * 2**20


def test_the_card_says_what_an_operator_must_know() -> None:
    card = shipped().card
    assert {"date", "photographs", "generated", "licence", "tasks", "seed", "drn_steps", "theta_steps"} <= card.keys()
    assert card["licence"] not in {"", "unknown"}
    assert card["drn_steps"] >= 500
    assert card["theta_steps"] >= 1000
    assert shipped().version


def test_it_knows_the_default_distortions_and_backbone() -> None:
    assert shipped().prototypes.names[:7] == list(PAPERS)
    assert set(shipped().prototypes.names) <= set(DISTORTIONS)
    assert shipped().card["tasks"] == list(PAPERS)  # What its network was trained on, whatever it was extended by.
    assert shipped().has_theta("vdsr", 2)
    assert shipped().has_theta("vdsr", 4)  # What pairs of scale 3 and 4 start from.
    assert shipped().thetas.keys() == {theta_name(*network_named(each)) for each in SHIPPED_NETWORKS}
    assert shipped().experts.keys() == set(shipped().prototypes.names)


def test_every_network_betters_photographs_that_it_has_not_seen_after_every_distortion() -> None:
    metrics = shipped().card["metrics"]
    assert metrics["psnr_db"].keys() == shipped().thetas.keys()
    for of_tasks in metrics["psnr_db"].values():
        assert list(of_tasks) == list(PAPERS)
        assert all(psnr["restored"] > psnr["input"] for psnr in of_tasks.values())


def test_every_number_is_finite_and_every_prototype_a_unit_vector() -> None:
    prior = shipped()
    experts = [value for expert in prior.experts.values() for value in expert.state_dict().values()]
    thetas = [value for theta in prior.thetas.values() for value in theta.values()]
    for value in [*prior.drn.state_dict().values(), *thetas, *experts]:
        assert torch.isfinite(value).all()
    assert torch.allclose(prior.prototypes.vectors.norm(dim=1), torch.ones(len(prior.prototypes.names)), atol=1e-4)


@pytest.mark.parametrize("name", PAPERS)
def test_a_known_distortion_of_unseen_photographs_is_found_again(
    name: str, photographs: dict[str, Tensor], seeded: Seeded
) -> None:
    """Of four photographs distorted at random strengths, the own kind is ranked first or second, or all but ties."""
    pairs = []
    for index, (title, image) in enumerate(photographs.items()):
        clean = from_uint8(image[:, 60:260, 80:280])
        pairs.append(TargetPair(title, to_uint8(clean), to_uint8(distort(name, clean, seeded(index)))))
    relation = relate(shipped().drn, shipped().prototypes, pairs, seed=0)
    order = [relation.prototypes.names[i] for i in relation.gamma.argsort(descending=True).tolist()]
    gamma = dict(zip(relation.prototypes.names, relation.gamma.tolist(), strict=True))
    assert name in order[:2] or gamma[name] > max(gamma.values()) - 0.03, gamma
    assert relation.verdict == "related"


def test_weak_noise_is_known_as_noise_too_and_the_less_related_the_weaker_it_is(
    photographs: dict[str, Tensor], seeded: Seeded
) -> None:
    """It lies within the range of the auxiliary task, whose mean is far stronger."""
    gammas = []
    for sigma_255 in (2, 4, 8):
        pairs = []
        for title, image in photographs.items():
            clean = from_uint8(image[:, 60:260, 80:280])
            pairs.append(TargetPair(title, to_uint8(clean), to_uint8(gaussian_noise(clean, sigma_255, seeded(0)))))
        # Of the paper's seven: of all, quantization is as weak and nearer to the weakest noise.
        relation = relate(shipped().drn, shipped().prototypes.only(range(7)), pairs, seed=0)
        assert relation.prototypes.names[int(relation.gamma.argmax())] == "noise"
        assert relation.verdict == "related"
        gammas.append(float(relation.gamma.max()))
    assert gammas == sorted(gammas)


def test_no_two_known_distortions_are_opposed_and_a_strong_mixture_is_nearer_to_a_moderate_one_than_to_blur() -> None:
    vectors = dict(zip(PAPERS, shipped().prototypes.vectors[:7], strict=True))
    assert all(float(one @ other) >= 0 for one in vectors.values() for other in vectors.values())
    assert float(vectors["severe"] @ vectors["moderate"]) > float(vectors["severe"] @ vectors["blur"]) + 0.1


def test_pre_trained_weights_restore_what_they_were_trained_on(photographs: dict[str, Tensor], seeded: Seeded) -> None:
    network = build("vdsr", 2, seed=0)
    assert shipped().start(network, "vdsr")
    pairs = []
    for title, image in photographs.items():
        clean = from_uint8(image[:, 60:188, 80:208])
        pairs.append(TargetPair(title, to_uint8(clean), to_uint8(distort("noise", clean, seeded(2)))))
    assert mean(quality_of(network, pairs)).psnr > mean(quality_of_input(pairs)).psnr + 1
