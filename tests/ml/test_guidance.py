"""How γ acts: shares, sharpening, selection, drawing, and the fall back to none of it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ml.distortions import DISTORTIONS
from ml.guidance import Guidance, guided, preference, task_shares, uniform
from ml.relation import LEAST_RELATION, LEAST_SPREAD, Prototypes, Relation, node_link_graph

GAMMAS = st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=7)
GUIDANCES = st.builds(
    Guidance,
    by=st.sampled_from(["weight", "sample"]),
    temperature=st.none() | st.floats(1e-3, 100),
    top_k=st.none() | st.integers(1, 9),
    prefer=st.sampled_from(["transferability", "likeness"]),
)
GAINS = st.lists(st.floats(-3, 9, width=32), min_size=2, max_size=7)


def related_by(gamma: list[float], gain_db: list[float] | None = None) -> Relation:
    """A relation with the given γ, and gains where there are experts."""
    k, d = len(gamma), 4
    unit = torch.nn.functional.normalize(torch.ones(k, d), dim=1)
    prototypes = Prototypes(list(DISTORTIONS)[:k], unit, unit[:, None].expand(k, 2, d), torch.full((k,), 25.0))
    gains = None if gain_db is None else torch.tensor([gain_db])
    return Relation(
        prototypes, unit[0], unit[:1], torch.tensor(gamma), torch.tensor([gamma]), 30.0, gain_db_of_pair=gains
    )


@given(gains=GAINS, guidance=GUIDANCES.filter(lambda guidance: guidance.prefer == "transferability"))
@settings(max_examples=200, deadline=None)
def test_with_experts_a_task_that_gains_more_never_has_less_whatever_it_looks_like(
    gains: list[float], guidance: Guidance
) -> None:
    assume(len(set(gains)) == len(gains))
    gamma = [0.9 - 0.1 * sorted(gains).index(gain) for gain in gains]  # The most alike gains least.
    assume(max(gamma) - min(gamma) >= LEAST_SPREAD)
    shares = task_shares(related_by(gamma, gains), guidance).tolist()
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    ordered = [share for _, share in sorted(zip(gains, shares, strict=True))]
    assert all(lower <= higher + 1e-6 for lower, higher in pairwise(ordered))
    assert ordered[-1] > 0


def test_shares_by_transferability_are_the_softmax_of_decibels() -> None:
    gains = np.array([0.64, 0.95, 0.74])
    relation = related_by([0.9, 0.3, 0.6], gains.tolist())
    for tau, guidance in ((0.1, Guidance()), (0.5, Guidance(temperature=0.5))):
        expected = np.exp(gains / tau) / np.exp(gains / tau).sum()
        assert task_shares(relation, guidance).numpy() == pytest.approx(expected, rel=1e-4)


def test_likeness_may_be_preferred_and_is_where_there_are_no_experts() -> None:
    gamma, gains = [0.6, 0.3, 0.1], [0.1, 0.2, 2.0]
    likeness = torch.tensor([0.6, 0.3, 0.1])
    chosen, without = Guidance(prefer="likeness"), Guidance()
    assert torch.allclose(task_shares(related_by(gamma, gains), chosen), likeness)
    assert torch.allclose(task_shares(related_by(gamma), without), likeness)
    assert preference(related_by(gamma, gains), chosen) == preference(related_by(gamma), without) == "likeness"
    assert preference(related_by(gamma, gains), without) == "transferability"


def test_the_top_k_by_transferability_are_those_that_gain_most() -> None:
    shares = task_shares(related_by([0.9, 0.5, 0.2], [0.1, 0.3, 0.2]), Guidance(top_k=2))
    assert shares[0] == 0
    assert shares[1] > shares[2] > 0


def test_the_top_k_are_learnt_alike_where_nothing_guides() -> None:
    relation = related_by([0.9, 0.5, 0.2], [0.1, 0.3, 0.2])
    assert uniform(relation, Guidance(top_k=2)).shares().tolist() == [0.0, 0.5, 0.5]
    assert uniform(relation, Guidance(top_k=1, prefer="likeness")).shares().tolist() == [1.0, 0.0, 0.0]
    assert uniform(relation, Guidance()).chances is None
    assert uniform(related_by([0.05, 0.02], [0.1, 3.0]), Guidance(top_k=1)).chances is None  # Like nothing known.


def test_where_likeness_decides_the_sentence_says_what_is_promised_and_not_that_none_is_preferred() -> None:
    relation = related_by([0.9, 0.5, 0.2], [-0.4, -0.1, 0.0])
    graph = node_link_graph(relation, "v", guidance={"prefer": "likeness"})["graph"]
    assert graph["sentence"].endswith("None of them promises to help at a first look.")


def test_where_no_expert_gains_none_is_preferred() -> None:
    relation = related_by([0.9, 0.5, 0.2], [-0.4, -0.1, 0.0])
    assert task_shares(relation, Guidance(top_k=1)).tolist() == pytest.approx([1 / 3] * 3)
    sentence = node_link_graph(relation, "v")["graph"]["sentence"]
    assert sentence.endswith("None of them promises to help at a first look, so none is preferred.")
    one_gains = related_by([0.9, 0.5, 0.2], [-0.4, -0.1, 0.1])
    assert float(task_shares(one_gains, Guidance(top_k=1))[2]) == 1


def test_of_a_target_that_is_like_nothing_known_gains_prefer_no_task() -> None:
    assert task_shares(related_by([0.05, 0.02], [0.1, 3.0]), Guidance()).tolist() == [0.5, 0.5]


@given(gamma=GAMMAS, guidance=GUIDANCES)
@settings(max_examples=200, deadline=None)
def test_shares_are_a_distribution_in_which_a_closer_task_never_has_less(
    gamma: list[float], guidance: Guidance
) -> None:
    assume(len(set(gamma)) == len(gamma))  # Of equals, top-k has to leave some out.
    shares = task_shares(related_by(gamma), guidance).tolist()
    assert all(share >= 0 for share in shares)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    ordered = [share for _, share in sorted(zip(gamma, shares, strict=True))]
    assert all(lower <= higher + 1e-6 for lower, higher in pairwise(ordered))


@given(gamma=GAMMAS, guidance=GUIDANCES)
@settings(max_examples=200, deadline=None)
def test_the_mix_has_the_shares_whether_it_weighs_or_draws(gamma: list[float], guidance: Guidance) -> None:
    relation = related_by(gamma)
    mix, shares = guided(relation, guidance), task_shares(relation, guidance)
    assert torch.allclose(mix.shares(), shares, atol=1e-6)
    assert (mix.gamma > 0).any()
    if mix.chances is not None:
        assert float(mix.chances.sum()) == pytest.approx(1, abs=1e-5)
        assert ((mix.chances > 0) == (shares > 0)).all()


@given(gamma=GAMMAS, guidance=GUIDANCES)
@settings(max_examples=200, deadline=None)
def test_low_or_flat_gamma_shares_alike_whatever_was_asked_for(gamma: list[float], guidance: Guidance) -> None:
    k = len(gamma)
    low = [value * (LEAST_RELATION - 1e-3) for value in gamma]
    flat = [0.5 + value * (LEAST_SPREAD / 2 - 1e-3) for value in gamma]
    for useless in (low, flat):
        assert task_shares(related_by(useless), guidance).tolist() == pytest.approx([1 / k] * k)


def test_sharpened_shares_are_the_softmax_of_gamma_over_the_temperature() -> None:
    gamma, tau = np.array([0.81, 0.4, 0.62, 0.12]), 0.15
    expected = np.exp(gamma / tau) / np.exp(gamma / tau).sum()
    shares = task_shares(related_by(gamma.tolist()), Guidance(temperature=tau))
    assert shares.numpy() == pytest.approx(expected, rel=1e-5)


def test_a_task_that_is_not_related_has_no_share_however_soft_the_maximum() -> None:
    shares = task_shares(related_by([0.8, 0.0, -0.3, 0.4]), Guidance(temperature=100.0))
    assert shares.tolist() == pytest.approx([0.5, 0, 0, 0.5], abs=0.01)


def test_the_lower_the_temperature_the_larger_the_share_of_the_nearest() -> None:
    relation = related_by([0.8, 0.6, 0.3])
    nearest = [float(task_shares(relation, Guidance(temperature=tau))[0]) for tau in (10, 1, 0.3, 0.1, 0.01)]
    assert nearest == sorted(nearest)
    assert nearest[0] == pytest.approx(1 / 3, abs=0.02)
    assert nearest[-1] == pytest.approx(1, abs=1e-6)


def test_top_k_leaves_the_nearest_in_their_proportions() -> None:
    assert task_shares(related_by([0.2, 0.6, 0.1, 0.4]), Guidance(top_k=2)).tolist() == pytest.approx([0, 0.6, 0, 0.4])


def test_of_fewer_tasks_than_asked_for_all_take_part() -> None:
    relation = related_by([0.2, 0.6])
    assert torch.equal(task_shares(relation, Guidance(top_k=9)), relation.weights)


def test_by_default_tasks_are_drawn_by_their_shares_and_weigh_alike() -> None:
    relation = related_by([0.6, 0.3, 0.1], [0.2, 0.1, 0.3])
    mix = guided(relation, Guidance())
    assert mix.gamma.tolist() == [1, 1, 1]
    assert mix.chances is not None
    assert torch.equal(mix.chances, task_shares(relation, Guidance()))


def test_as_a_weight_gamma_itself_weighs_and_tasks_are_drawn_alike() -> None:
    relation = related_by([0.6, 0.3, 0.1])
    mix = guided(relation, Guidance("weight"))
    assert torch.equal(mix.gamma, relation.weights)
    assert mix.chances is None


def test_tasks_without_a_weight_are_not_drawn() -> None:
    mix = guided(related_by([0.6, -0.2, 0.3]), Guidance("weight"))
    assert mix.chances is not None
    assert mix.chances.tolist() == [0.5, 0, 0.5]


def test_uniform_learning_asks_gamma_nothing() -> None:
    mix = uniform(related_by([0.9, -0.5, 0.1]))
    assert (mix.gamma.tolist(), mix.chances) == ([1, 1, 1], None)
