"""Which known distortions a job may learn from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.distortions import DISTORTIONS, PAPERS
from ml.edges import Edges, similarity
from ml.guidance import task_shares
from ml.options import TrainingOptions
from ml.relation import LEAST_RELATION, LEAST_SPREAD, NONE_OF_THESE, Prototypes, Relation, node_link_graph
from ml.selection import Select, selected

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
    assert TrainingOptions().select == "paper"
    assert selected(relation, "paper").prototypes.names == list(PAPERS)


@pytest.mark.parametrize("select", ["all", "top-k"])
def test_of_all_gamma_decides(relation: Relation, select: Select) -> None:
    assert selected(relation, select).prototypes.names == NAMES


@given(
    gamma=st.lists(st.integers(-100, 100).map(lambda percent: percent / 100), min_size=16, max_size=16),
    k=st.none() | st.integers(1, 30),
)
@settings(max_examples=50, deadline=None)
def test_no_distortion_that_is_left_out_is_nearer_than_one_of_the_top_k(gamma: list[float], k: int | None) -> None:
    gamma = [*gamma, 1.0 if min(gamma) < 1 - LEAST_SPREAD else 0.0]  # Neither low nor flat.
    options = TrainingOptions(select="top-k", top_k=k)
    shares = task_shares(selected(related_by(gamma, NAMES), options.select), options.acting).tolist()
    learnt_from = [value for value, share in zip(gamma, shares, strict=True) if share > 0]
    assert len(learnt_from) == min(k or 7, sum(value > 0 for value in gamma))
    left_out = [value for value, share in zip(gamma, shares, strict=True) if share == 0]
    assert not left_out or max(left_out) <= min(learnt_from)


def test_what_is_chosen_keeps_its_gamma_node_samples_and_strength(relation: Relation) -> None:
    chosen = selected(relation, "paper")
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
    assert selected(few, "paper").prototypes.names == ["noise", "blur"]
    with pytest.raises(ValueError, match=r"select: .* jpeg"):
        selected(related_by([0.9], ["jpeg"]), "paper")


def test_a_choice_of_much_the_same_gamma_is_flat_only_where_all_that_is_known_is() -> None:
    near, far = 0.9, 0.9 - 2 * LEAST_SPREAD
    alike = related_by([near, near, near], ["noise", "blur", "jpeg"])
    assert (alike.fallback, selected(alike, "paper").fallback) == ("flat", "flat")
    apart = related_by([near, near, far], ["noise", "blur", "jpeg"])
    assert (apart.fallback, selected(apart, "paper").fallback) == (None, None)


@pytest.mark.parametrize("edges", ["cosine", "l1", "l2"])
def test_whatever_the_edges_a_target_at_a_right_angle_to_all_that_is_known_is_unrelated(edges: Edges) -> None:
    vectors = torch.eye(4)
    prototypes = Prototypes(["noise", "blur", "jpeg"], vectors[:3], vectors[:3, None].expand(-1, 2, -1), torch.ones(3))

    def related_to(target: Tensor) -> Relation:
        gamma = similarity(target[None], prototypes.vectors, edges)
        return Relation(prototypes, target, target[None], gamma[0], gamma, 30.0, edges)

    assert related_to(vectors[3]).fallback == "low"
    assert selected(related_to(vectors[3]), "paper").fallback == "low"
    assert related_to(vectors[0]).fallback is None
    alike = torch.nn.functional.normalize(vectors[:3].sum(dim=0), dim=0)
    assert related_to(alike).fallback == "flat"


def test_where_only_the_papers_are_unlike_the_target_none_of_them_is_preferred_and_the_graph_says_so() -> None:
    relation = related_by([LEAST_RELATION / 2, LEAST_RELATION / 4, 0.9], ["noise", "blur", "jpeg"])
    tasks = selected(relation, "paper")
    facts = node_link_graph(relation, "v", tasks)["graph"]
    assert (facts["verdict"], facts["fallback"]) == ("unrelated", "low")
    assert facts["sentence"].startswith("Mostly like ")
    assert facts["sentence"].endswith(NONE_OF_THESE)
    assert tasks.weights.tolist() == [0.5, 0.5]


def test_the_graph_ranks_all_and_gives_weight_to_those_that_are_learnt_from(relation: Relation) -> None:
    options = TrainingOptions(select="top-k", top_k=4)
    tasks = selected(relation, options.select)
    graph = node_link_graph(relation, "v", tasks, task_shares(tasks, options.acting))
    auxiliary = [node for node in graph["nodes"] if node["kind"] == "auxiliary"]
    assert len(graph["graph"]["ranking"]) == len(auxiliary) == 17
    assert sum(node["weight"] for node in auxiliary) == pytest.approx(1)
    for node in auxiliary:
        assert node["selected"] is (node["weight"] > 0) is (node["rank"] <= 4)
    links = [link for link in graph["links"] if link["target"] == "target"]
    assert {link["source"]: link["weight"] for link in links} == {node["id"]: node["weight"] for node in auxiliary}
