"""How alike two nodes are, by cosine, L1 and L2."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from ml.edges import EDGES, Edges, similarity


def nodes(seed: int, count: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def by_hand(x: np.ndarray, y: np.ndarray, edges: Edges) -> float:
    if edges == "cosine":
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))
    if edges == "l1":
        return float(1 - np.abs(x - y).sum() / (np.abs(x).sum() + np.abs(y).sum()))
    return float(1 - np.sqrt(((x - y) ** 2).sum()) / (np.sqrt(x @ x) + np.sqrt(y @ y)))


@pytest.mark.parametrize("edges", EDGES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_similarity_is_what_it_is_by_hand(edges: Edges, seed: int) -> None:
    x, y = nodes(seed, 3), nodes(seed + 1, 4)
    expected = [[by_hand(a, b, edges) for b in y.double().numpy()] for a in x.double().numpy()]
    assert np.allclose(similarity(x, y, edges).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("edges", EDGES)
def test_equal_nodes_are_wholly_alike_and_nothing_is_more_alike(edges: Edges) -> None:
    x = nodes(0, 9)
    alike = similarity(x, x, edges)
    assert torch.allclose(alike.diagonal(), torch.ones(9), atol=2e-3)  # cdist's L2 is a little rough at zero
    assert torch.allclose(alike, alike.T, atol=1e-5)
    assert float(alike.max()) <= 1 + 1e-5


@pytest.mark.parametrize(("edges", "least"), [("cosine", -1), ("l1", 0), ("l2", 0)])
def test_opposite_nodes_are_least_alike(edges: Edges, least: float) -> None:
    x = nodes(0, 4)
    assert similarity(x, -x, edges).diagonal().tolist() == pytest.approx([least] * 4, abs=1e-5)


def test_of_unit_nodes_l2_ranks_as_the_cosine_does() -> None:
    x, y = normalize(nodes(0, 1), dim=1), normalize(nodes(1, 20), dim=1)
    assert torch.equal(similarity(x, y, "l2").argsort(), similarity(x, y, "cosine").argsort())


@pytest.mark.parametrize("edges", EDGES)
def test_gradients_are_finite_even_where_nodes_are_equal(edges: Edges) -> None:
    x = nodes(0, 4).requires_grad_()
    similarity(x, torch.cat([x.detach(), nodes(1, 2)]), edges).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
