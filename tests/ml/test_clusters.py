"""Whether samples keep together: against the definition, written out sample by sample."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ml.clusters import neighbours, silhouettes


def by_definition(samples: np.ndarray) -> list[float]:
    k, n, _ = samples.shape
    unit = samples / np.linalg.norm(samples, axis=2, keepdims=True)
    means = []
    for own in range(k):
        values = []
        for one in range(n):
            to_each = [
                np.mean([1 - unit[own, one] @ unit[other, two] for two in range(n) if (other, two) != (own, one)])
                for other in range(k)
            ]
            a, b = to_each[own], min(to_each[other] for other in range(k) if other != own)
            values.append((b - a) / max(a, b))
        means.append(float(np.mean(values)))
    return means


def scattered(seed: int, k: int = 3, n: int = 4) -> Tensor:
    return torch.randn(k, n, 5, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), k=st.integers(2, 4), n=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_the_silhouette_is_that_of_rousseeuw(seed: int, k: int, n: int) -> None:
    samples = scattered(seed, k, n)
    assert silhouettes(samples) == pytest.approx(by_definition(samples.double().numpy()), abs=1e-4)


def test_tight_and_distant_clusters_have_silhouettes_near_one_and_shuffled_ones_do_not() -> None:
    centres = torch.eye(5)[:3, None]
    tight = centres + 0.02 * scattered(0)
    assert min(silhouettes(tight)) > 0.95
    shuffled = tight.flatten(0, 1)[torch.randperm(12, generator=torch.Generator().manual_seed(1))].reshape(3, 4, 5)
    assert max(silhouettes(shuffled)) < 0.2


def test_neighbours_of_a_cluster_are_its_own_and_of_a_mixed_one_the_others() -> None:
    centres = torch.eye(5)[[0, 0, 1], None]  # the first two lie together
    samples = centres + 0.02 * scattered(0, 3, 20)
    alone, mixed = neighbours(samples, 2, 5), neighbours(samples, 0, 5)
    assert alone.tolist() == [0, 0, 1]
    assert float(mixed[2]) == 0
    assert 0.2 < float(mixed[0]) < 0.8
    assert float(mixed.sum()) == pytest.approx(1)
