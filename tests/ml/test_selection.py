"""Which known distortions a job learns from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.distortions import DISTORTIONS, PAPERS
from ml.relation import Prototypes, Relation, node_link_graph
from ml.selection import selected

NAMES = list(DISTORTIONS)


def related_by(gamma: list[float], names: list[str]) -> Relation:
    """A relation with the given γ to the named distortions, each with a node of its own."""
    vectors = torch.eye(len(names))
    prototypes = Prototypes(names, vectors, vectors[:, None].expand(-1, 2, -1), torch.arange(len(names)) + 20.0)
    return Relation(prototypes, vectors[0], vectors[:1], torch.tensor(gamma), torch.tensor([gamma]), 30.0)


@pytest.fixture
def relation() -> Relation:
    return related_by([0.05 * ((7 * place) % 17) for place in range(17)], NAMES)


def test_the_papers_seven_are_the_default_whatever_their_gamma(relation: Relation) -> None:
    assert selected(relation, "paper", 3).prototypes.names == list(PAPERS)


def test_all_are_all(relation: Relation) -> None:
    assert selected(relation, "all", 3).prototypes.names == NAMES


@given(gamma=st.lists(st.floats(-1, 1, width=32), min_size=17, max_size=17), k=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_no_distortion_that_is_left_out_is_nearer_than_one_of_the_top_k(gamma: list[float], k: int) -> None:
    chosen = selected(related_by(gamma, NAMES), "top-k", k)
    assert len(chosen.prototypes.names) == min(k, 17)
    of = dict(zip(NAMES, gamma, strict=True))
    left_out = [of[name] for name in NAMES if name not in chosen.prototypes.names]
    assert not left_out or max(left_out) <= min(of[name] for name in chosen.prototypes.names)


def test_what_is_chosen_keeps_its_gamma_node_samples_and_strength(relation: Relation) -> None:
    chosen = selected(relation, "top-k", 4)
    for place, name in enumerate(chosen.prototypes.names):
        before = NAMES.index(name)
        assert chosen.gamma[place] == relation.gamma[before]
        assert chosen.gamma_of_pair[0, place] == relation.gamma_of_pair[0, before]
        assert torch.equal(chosen.prototypes.vectors[place], relation.prototypes.vectors[before])
        assert torch.equal(chosen.prototypes.samples[place], relation.prototypes.samples[before])
        assert chosen.prototypes.psnr_db[place] == relation.prototypes.psnr_db[before]
    assert chosen.target_psnr_db == relation.target_psnr_db


def test_of_a_prior_that_knows_few_the_papers_are_those_that_it_knows() -> None:
    few = related_by([0.9, 0.5, 0.4], ["jpeg", "noise", "blur"])
    assert selected(few, "paper", 7).prototypes.names == ["noise", "blur"]
    with pytest.raises(ValueError, match=r"select: .* jpeg"):
        selected(related_by([0.9], ["jpeg"]), "paper", 7)


def test_the_graph_ranks_all_and_gives_weight_to_those_that_are_learnt_from(relation: Relation) -> None:
    chosen = selected(relation, "top-k", 4)
    graph = node_link_graph(relation, "v", chosen)
    auxiliary = [node for node in graph["nodes"] if node["kind"] == "auxiliary"]
    assert len(graph["graph"]["ranking"]) == len(auxiliary) == 17
    weights = dict(zip(chosen.prototypes.names, chosen.weights.tolist(), strict=True))
    assert sum(weights.values()) == pytest.approx(1)
    for node in auxiliary:
        assert node["selected"] is (node["rank"] <= 4)
        assert node["weight"] == pytest.approx(weights.get(node["id"], 0))
