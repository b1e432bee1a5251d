"""How a target is related to the known distortions (Algorithm 1)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ml.auxiliary import distorted_crops
from ml.chance import Chance, EachItsOwn
from ml.distortions import DISTORTIONS
from ml.drn import DistortionRelationNetwork, DrnShape, residual_psnr
from ml.edges import Edges, similarity
from ml.optimizer import adam
from ml.pairs import TargetPair
from ml.prior import Prior
from ml.relation import (
    LEAST_RELATION,
    LEAST_SPREAD,
    MOST_IN_AREAS,
    PATCH,
    Prototypes,
    Relation,
    compute_prototypes,
    drn_step,
    in_words,
    node_link_graph,
    prototypical_loss,
    relate,
)

Seeded = Callable[[int], torch.Generator]

Pairs = Callable[..., list[TargetPair]]
NAMES = list(DISTORTIONS)
GAMMAS = st.lists(st.floats(-1, 1, width=32), min_size=7, max_size=7)


def related_by(gamma: list[float]) -> Relation:
    """A relation with the given γ."""
    k, d = len(gamma), 4
    unit = torch.nn.functional.normalize(torch.ones(k, d), dim=1)
    prototypes = Prototypes(NAMES[:k], unit, unit[:, None].expand(k, 2, d), torch.full((k,), 25.0))
    return Relation(prototypes, unit[0], unit[:1], torch.tensor(gamma), torch.tensor([gamma]), 30.0)


@pytest.fixture
def relation(tiny_prior: Prior, target_pairs: Pairs) -> Relation:
    return relate(tiny_prior.drn, tiny_prior.prototypes, target_pairs(3), seed=0)


@given(gamma=GAMMAS)
@settings(max_examples=100, deadline=None)
def test_weights_are_never_negative_and_sum_to_one(gamma: list[float]) -> None:
    weights = related_by(gamma).weights
    assert (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)


@given(gamma=GAMMAS)
@settings(max_examples=100, deadline=None)
def test_a_closer_distortion_never_weighs_less(gamma: list[float]) -> None:
    weights = related_by(gamma).weights.tolist()
    ordered = [weight for _, weight in sorted(zip(gamma, weights, strict=True))]
    assert all(lower <= higher for lower, higher in pairwise(ordered))


def test_weights_are_proportional_to_gamma_clamped_at_zero() -> None:
    assert related_by([0.6, -0.5, 0.2, 0.0]).weights.tolist() == pytest.approx([0.75, 0, 0.25, 0])


@pytest.mark.parametrize(("best", "verdict"), [(LEAST_RELATION - 0.01, "unrelated"), (LEAST_RELATION, "related")])
def test_a_target_like_nothing_known_weighs_all_tasks_alike(best: float, verdict: str) -> None:
    relation = related_by([best, -0.3, 0.1, -1.0])
    assert relation.verdict == verdict
    assert (relation.weights.tolist() == [0.25] * 4) is (verdict == "unrelated")


@pytest.mark.parametrize(
    ("gamma", "fallback"),
    [
        ([LEAST_RELATION - 0.01, -0.5, 0.1], "low"),
        ([LEAST_RELATION, -0.5, 0.1], None),
        ([0.5, 0.5 + 0.99 * LEAST_SPREAD, 0.52], "flat"),
        ([0.5, 0.5 + 1.01 * LEAST_SPREAD, 0.52], None),
        ([0.1, 0.11, 0.12], "low"),  # Flat as well; that nothing is near is the stronger reason.
        ([0.9], None),  # One task cannot be flat.
    ],
)
def test_low_and_flat_gamma_prefer_no_task_and_say_so(gamma: list[float], fallback: str | None) -> None:
    relation = related_by(gamma)
    assert relation.fallback == fallback
    assert relation.verdict == ("related" if fallback is None else "unrelated")
    facts = node_link_graph(relation, "v")["graph"]
    assert (facts["verdict"], facts["fallback"]) == (relation.verdict, fallback)
    assert ("no auxiliary task is preferred" in facts["sentence"]) is (fallback is not None)
    if fallback is not None:
        assert relation.weights.tolist() == [pytest.approx(1 / len(gamma))] * len(gamma)


def test_gamma_is_the_cosine_of_the_nodes(relation: Relation) -> None:
    vectors = relation.prototypes.vectors
    expected = cosine_similarity(vectors, relation.target[None].expand_as(vectors), dim=1)
    assert torch.allclose(relation.gamma, expected, atol=1e-6)
    assert relation.gamma_of_pair.shape == (3, 3)
    for node, gamma in zip(relation.pair_nodes, relation.gamma_of_pair, strict=True):
        assert torch.allclose(gamma, cosine_similarity(vectors, node[None].expand_as(vectors), dim=1), atol=1e-6)


@pytest.mark.parametrize("edges", ["l1", "l2"])
def test_with_other_edges_gamma_is_their_similarity(
    edges: Edges, photographs: dict[str, Tensor], target_pairs: Pairs
) -> None:
    drn = DistortionRelationNetwork(DrnShape(1 / 32, 8, 4, edges=edges)).eval()
    prototypes = compute_prototypes(drn, list(photographs.values()), ["noise", "blur"], 2, seed=0)
    relation = relate(drn, prototypes, target_pairs(2), seed=0)
    expected = similarity(prototypes.vectors, relation.target[None], edges)[:, 0]
    assert torch.allclose(relation.gamma, expected, atol=1e-6)
    assert relation.gamma_of_pair.shape == (2, 2)
    assert node_link_graph(relation, "v")["graph"]["metric"] == edges


def test_pairs_whose_areas_have_changed_are_unrelated_whatever_gamma(tiny_prior: Prior, target_pairs: Pairs) -> None:
    darker = [replace(pair, distorted=pair.clean // 2) for pair in target_pairs(3)]
    relation = relate(tiny_prior.drn, tiny_prior.prototypes, darker, seed=0)
    assert relation.in_areas > MOST_IN_AREAS
    assert (relation.verdict, relation.fallback) == ("unrelated", "areas")
    assert relation.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert "whole areas" in in_words(relation)


def test_pairs_out_of_place_are_unrelated_but_one_of_many_is_not_enough(tiny_prior: Prior, target_pairs: Pairs) -> None:
    noisy = target_pairs(3)
    moved = [replace(pair, distorted=pair.clean.roll(1, dims=2)) for pair in noisy]
    relation = relate(tiny_prior.drn, tiny_prior.prototypes, moved, seed=0)
    assert relation.fallback == "displaced"
    assert "out of place" in in_words(relation)
    mostly_noisy = relate(tiny_prior.drn, tiny_prior.prototypes, [moved[0], *noisy[1:]], seed=0)
    assert mostly_noisy.fallback != "displaced"


def test_the_target_is_the_mean_of_its_pairs_at_unit_length(relation: Relation) -> None:
    mean = relation.pair_nodes.mean(dim=0)
    assert torch.allclose(relation.target, mean / mean.norm(), atol=1e-6)
    assert torch.allclose(relation.pair_nodes.norm(dim=1), torch.ones(3), atol=1e-5)


def test_the_order_of_the_pairs_does_not_matter(tiny_prior: Prior, target_pairs: Pairs, relation: Relation) -> None:
    pairs = target_pairs(3)
    backwards = relate(tiny_prior.drn, tiny_prior.prototypes, pairs[::-1], seed=0)
    assert torch.allclose(backwards.gamma, relation.gamma, atol=1e-5)
    assert torch.allclose(backwards.gamma_of_pair.flip(0), relation.gamma_of_pair, atol=1e-5)


def test_the_same_pairs_and_seed_give_the_same_relation(
    tiny_prior: Prior, target_pairs: Pairs, relation: Relation
) -> None:
    again = relate(tiny_prior.drn, tiny_prior.prototypes, target_pairs(3), seed=0)
    assert torch.equal(again.gamma, relation.gamma)


@pytest.mark.parametrize("size", [(48, 48), (50, 61), (200, 48)])
def test_small_pairs_can_be_related(tiny_prior: Prior, target_pairs: Pairs, size: tuple[int, int]) -> None:
    relation = relate(tiny_prior.drn, tiny_prior.prototypes, target_pairs(1, *size), seed=0)
    assert torch.isfinite(relation.gamma).all()


def test_equal_images_can_be_related(tiny_prior: Prior, target_pairs: Pairs) -> None:
    (pair,) = target_pairs(1)
    relation = relate(tiny_prior.drn, tiny_prior.prototypes, [TargetPair("same", pair.clean, pair.clean)], seed=0)
    assert torch.isfinite(relation.gamma).all()
    json.dumps(node_link_graph(relation, "v"), allow_nan=False)


def test_the_strength_of_the_target_is_its_psnr(relation: Relation) -> None:
    assert relation.target_psnr_db == pytest.approx(20 * np.log10(255 / 20), abs=0.5)


def test_a_prototype_is_the_mean_node_of_its_samples_at_unit_length(tiny_prior: Prior) -> None:
    prototypes = tiny_prior.prototypes
    assert torch.allclose(prototypes.samples.norm(dim=2), torch.ones(3, 3), atol=1e-4)
    mean = prototypes.samples.mean(dim=1)
    assert torch.allclose(prototypes.vectors, mean / mean.norm(dim=1, keepdim=True), atol=1e-6)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The samples that the tasks are learnt and known from, clean and distorted, of every draw from now on."""
    seen: list[Tensor] = []

    def keep(images: Sequence[Tensor], names: Sequence[str], side: int, chance: Chance, tries: int) -> Tensor:
        seen.append(distorted_crops(images, names, side, chance, tries))
        return seen[-1]

    monkeypatch.setattr("ml.relation.distorted_crops", keep)
    return seen


def pairs_given_to(drn: DistortionRelationNetwork) -> list[tuple[Tensor, Tensor]]:
    """What it embeds from now on, clean and distorted."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: object, pairs: tuple[Tensor, Tensor]) -> None:
        seen.append(pairs)

    drn.register_forward_pre_hook(keep)
    return seen


def test_the_samples_of_a_prototype_are_the_nodes_of_what_was_drawn(
    tiny_drn: DistortionRelationNetwork, photographs: dict[str, Tensor], draws: list[Tensor]
) -> None:
    """Clean and distorted are not mistaken for each other, which an untrained network's nodes hardly show."""
    embedded = pairs_given_to(tiny_drn)
    prototypes = compute_prototypes(tiny_drn, list(photographs.values()), ["noise", "bicubic"], 2, seed=0)
    assert len(draws) == 2
    for samples, given_pairs, (clean, distorted) in zip(prototypes.samples, list(embedded), draws, strict=True):
        assert torch.equal(given_pairs[0], clean)
        assert torch.equal(given_pairs[1], distorted)
        with torch.no_grad():
            assert torch.equal(samples, tiny_drn(clean, distorted))


def test_a_target_is_embedded_the_same_way_round(tiny_prior: Prior, target_pairs: Pairs) -> None:
    embedded = pairs_given_to(tiny_prior.drn)
    darker = [replace(pair, distorted=pair.clean // 2) for pair in target_pairs(2)]
    relate(tiny_prior.drn, tiny_prior.prototypes, darker, seed=0)
    assert len(embedded) == 2
    assert all((clean >= distorted).all() and not torch.equal(clean, distorted) for clean, distorted in embedded)


def test_the_drn_learns_from_the_residuals_that_it_relates_by(
    tiny_drn: DistortionRelationNetwork,
    photographs: dict[str, Tensor],
    draws: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other way round, it would know distortions by the opposite of what they do."""
    kind, given_residuals = tiny_drn.kind, []

    def keep(residual: Tensor) -> Tensor:
        given_residuals.append(residual)
        return kind(residual)

    monkeypatch.setattr(tiny_drn, "kind", keep)
    drn_step(tiny_drn, adam(tiny_drn, 1e-2), list(photographs.values()), ["noise", "blur"], 1, seed=0, step=0)
    ((clean, distorted),) = draws
    with torch.no_grad():
        tiny_drn(clean, distorted)
    learnt_from, related_by_it = given_residuals
    assert torch.equal(learnt_from, related_by_it)
    assert torch.allclose(learnt_from, (clean - distorted) / 2 + 0.5)


def test_prototypes_depend_on_the_seed_only(
    tiny_drn: DistortionRelationNetwork, photographs: dict[str, Tensor]
) -> None:
    images = list(photographs.values())
    first, again, other = (compute_prototypes(tiny_drn, images, ["noise"], 2, seed).vectors for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def reference_loss(support: np.ndarray, query: np.ndarray, temperature: float) -> float:
    def unit(x: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
        return scaled

    prototypes = unit(unit(support).mean(axis=1))
    losses = []
    for label, queries in enumerate(query):
        for node in queries:
            logits = prototypes @ unit(node) / temperature
            losses.append(np.log(np.exp(logits).sum()) - logits[label])
    return float(np.mean(losses))


def test_the_prototypical_loss_equals_a_numpy_reference(seeded: Seeded) -> None:
    support, query = torch.randn(4, 3, 6, generator=seeded(0)), torch.randn(4, 2, 6, generator=seeded(1))
    expected = reference_loss(support.double().numpy(), query.double().numpy(), 0.1)
    assert float(prototypical_loss(support, query, 0.1)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("edges", ["l1", "l2"])
def test_the_prototypical_loss_of_other_edges_prefers_clusters_too(edges: Edges) -> None:
    clusters = torch.eye(4)[:, None].expand(4, 3, 4)
    alike = torch.ones(4, 3, 4)
    assert float(prototypical_loss(clusters, clusters, 0.1, edges)) < 0.01
    assert float(prototypical_loss(alike, alike, 0.1, edges)) == pytest.approx(np.log(4), abs=1e-4)


def test_the_prototypical_loss_is_small_for_clusters_and_log_k_for_equal_nodes() -> None:
    clusters = torch.eye(4)[:, None].expand(4, 3, 4)
    assert float(prototypical_loss(clusters, clusters, 0.1)) < 1e-3
    alike = torch.ones(4, 3, 4)
    assert float(prototypical_loss(alike, alike, 0.1)) == pytest.approx(np.log(4), abs=1e-5)


def test_a_step_of_the_drn_is_repeatable_and_learns_the_memory(
    tiny_drn: DistortionRelationNetwork, photographs: dict[str, Tensor]
) -> None:
    start = {name: value.clone() for name, value in tiny_drn.state_dict().items()}
    after = []
    for _ in range(2):
        tiny_drn.load_state_dict(start)
        tiny_drn.train()
        drn_step(tiny_drn, adam(tiny_drn, 1e-2), list(photographs.values()), ["noise", "blur"], 2, seed=0, step=0)
        after.append({name: value.clone() for name, value in tiny_drn.state_dict().items()})
    assert all(torch.equal(after[0][name], after[1][name]) for name in start)
    assert not torch.equal(after[0]["memory"], start["memory"])


def test_the_drn_learns_to_tell_distortions_apart(
    tiny_drn: DistortionRelationNetwork, photographs: dict[str, Tensor]
) -> None:
    optimizer = adam(tiny_drn, 1e-2)
    tiny_drn.train()
    images = list(photographs.values())
    tasks = ["noise", "bicubic", "mild"]
    losses = [drn_step(tiny_drn, optimizer, images, tasks, 2, seed=0, step=0) for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_graph_loads_in_networkx_and_is_json(relation: Relation) -> None:
    graph = node_link_graph(relation, "prior-7")
    assert json.loads(json.dumps(graph, allow_nan=False)) == graph
    loaded = nx.node_link_graph(graph, edges="links")
    assert not loaded.is_directed()
    assert set(loaded.nodes) == {"bicubic", "noise", "mild", "target"}
    assert nx.is_connected(loaded)
    assert loaded.number_of_edges() == 6  # a link between every two nodes
    assert loaded.graph["prior"] == "prior-7"


def test_the_graph_says_what_the_relation_says(relation: Relation) -> None:
    graph = node_link_graph(relation, "v")
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = {(link["source"], link["target"]): link["cosine"] for link in graph["links"]}
    names = relation.prototypes.names
    for index, name in enumerate(names):
        node = nodes[name]
        assert node["gamma"] == pytest.approx(float(relation.gamma[index]))
        assert links[name, "target"] == pytest.approx(node["gamma"], abs=1e-6)
        assert node["gamma_min"] <= float(relation.gamma_of_pair[:, index].mean()) <= node["gamma_max"]
        assert node["gamma_std"] == pytest.approx(np.std(relation.gamma_of_pair[:, index].numpy()), abs=1e-6)
        assert node["weight"] == pytest.approx(float(relation.weights[index]))
        assert graph["graph"]["ranking"][node["rank"] - 1] == name
    cosine = relation.prototypes.vectors[0] @ relation.prototypes.vectors[2]
    assert links[names[0], names[2]] == pytest.approx(float(cosine), abs=1e-6)
    gammas = [nodes[name]["gamma"] for name in graph["graph"]["ranking"]]
    assert gammas == sorted(gammas, reverse=True)
    assert len(nodes["target"]["samples"]) == 3
    assert graph["graph"]["verdict"] == relation.verdict


def test_the_projection_spreads_the_samples_as_far_as_any_plane_can(relation: Relation) -> None:
    """Principal components: the variance kept is the sum of the two largest eigenvalues of the covariance."""
    samples = relation.prototypes.samples.flatten(0, 1).double().numpy()
    best = np.sort(np.linalg.eigvalsh(np.cov(samples.T, bias=True)))[-2:].sum()
    nodes = node_link_graph(relation, "v")["nodes"]
    projected = np.concatenate([node["samples"] for node in nodes if node["kind"] == "auxiliary"])
    assert projected.var(axis=0).sum() == pytest.approx(best, rel=0.02)


def test_the_sentence_names_the_nearest_and_the_farthest() -> None:
    sentence = in_words(related_by([0.1, 0.2, 0.9, -0.4]))
    assert "pure noise (γ 0.90)" in sentence
    assert "least like pure blur" in sentence
    assert "and" not in sentence.split(";")[0]
    both = in_words(related_by([0.1, 0.85, 0.9, -0.4]))
    assert DISTORTIONS["aniso_bicubic"].words in both
    assert "Unlike every known distortion" in in_words(related_by([0.1, 0.15, 0.05, -0.4]))


def test_patches_of_a_distortion_have_the_psnr_that_the_graph_states(
    photographs: dict[str, Tensor], seeded: Seeded
) -> None:
    chance = EachItsOwn([seeded(0), seeded(1)])
    clean, distorted = distorted_crops(list(photographs.values()), ["bicubic", "bicubic"], PATCH, chance, tries=4)
    expected = -10 * np.log10(((clean - distorted).double() ** 2).mean(dim=(1, 2, 3)).numpy())
    assert np.allclose(residual_psnr((clean - distorted) / 2 + 0.5).numpy(), expected, atol=1e-3)
