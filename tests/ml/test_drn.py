"""The distortion-relation network against §3.2 of the paper."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import Tensor

from ml.drn import (
    Affinity,
    DistortionRelationNetwork,
    DrnShape,
    joined,
    kind_in,
    normalised,
    residual_psnr,
    strength_code,
)

Seeded = Callable[[int], torch.Generator]

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def reference_node(drn: DistortionRelationNetwork, clean: Array, distorted: Array) -> Array:
    """The whole forward pass for one pair in NumPy, in double precision, from the weights alone."""
    weights = {name: value.double().numpy() for name, value in drn.state_dict().items()}
    residual = (clean - distorted) / 2 + 0.5
    deviation = residual - 0.5
    rms = max(np.sqrt((deviation**2).mean()), 1 / 510)
    x = deviation / rms
    index = 0
    for entry in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"):
        if entry == "pool":
            c, h, w = x.shape
            x = np.pad(x, ((0, 0), (0, h % 2), (0, w % 2)), constant_values=-np.inf)
            x = x.reshape(c, (h + 1) // 2, 2, (w + 1) // 2, 2).max(axis=(2, 4))
            index += 1
            continue
        kernels = weights[f"vgg.{index}.weight"]
        x = np.stack([sum(correlate2d(x[i], k[i], "same") for i in range(len(x))) for k in kernels])
        norm = {
            n: weights[f"vgg.{index + 1}.{n}"][:, None, None] for n in ("weight", "bias", "running_mean", "running_var")
        }
        x = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
        x = np.maximum(x, 0)
        index += 3
    f = weights["vgg.31.weight"] @ x.mean(axis=(1, 2)) + weights["vgg.31.bias"]
    memory = weights["memory"]
    nodes = np.concatenate([f[None], memory])
    squared = ((nodes[:, None] - nodes[None]) ** 2).sum(axis=2)
    if drn.shape.affinity == "literal":
        adjacency = sigmoid(squared)  # Eq. (6), (8) as printed
    else:
        adjacency = sigmoid(weights["affinity.b"] - np.exp(weights["affinity.log_a"]) * squared / len(f))
    adjacency[0, 0] = 1  # the sample's tie to itself, of which Eq. (7) does not speak
    degree = adjacency.sum(axis=1)
    adjacency = adjacency / np.sqrt(degree[:, None] * degree[None])
    hidden = np.maximum(adjacency @ nodes @ weights["gcn.0.weight"].T + weights["gcn.0.bias"], 0) + nodes
    c = (adjacency @ hidden @ weights["gcn.1.weight"].T + weights["gcn.1.bias"])[0]
    kind = c / np.linalg.norm(c)
    psnr = -10 * np.log10(((clean - distorted) ** 2).mean())
    strength = np.exp(-((np.clip(psnr, 10, 50) - np.arange(10, 51, 5)) ** 2) / (2 * 8.0**2))
    return np.outer(kind, strength / np.linalg.norm(strength)).ravel()


@pytest.mark.parametrize("memory_nodes", [0, 4])
@pytest.mark.parametrize("affinity", ["scaled", "literal"])
def test_the_forward_pass_equals_a_numpy_reference(
    affinity: Literal["scaled", "literal"], memory_nodes: int, seeded: Seeded
) -> None:
    """With a memory bank and without one."""
    torch.manual_seed(0)
    drn = DistortionRelationNetwork(DrnShape(1 / 32, 8, memory_nodes, affinity)).eval()
    with torch.no_grad():
        drn.memory.mul_(0.3)
        drn.affinity.log_a.fill_(0.4)
        drn.affinity.b.fill_(0.7)
        for name, value in drn.state_dict().items():
            if "running_mean" in name:
                value.normal_(0, 0.1, generator=seeded(1))
            if "running_var" in name:
                value.uniform_(0.05, 0.4, generator=seeded(2))
    clean = torch.rand(2, 3, 32, 37, generator=seeded(3))
    distorted = (clean + 0.1 * torch.randn(clean.shape, generator=seeded(4))).clamp(0, 1)
    nodes = drn(clean, distorted).detach().numpy()
    for node, one_clean, one_distorted in zip(nodes, clean.double().numpy(), distorted.double().numpy(), strict=True):
        assert np.allclose(node, reference_node(drn, one_clean, one_distorted), atol=1e-4)


@pytest.fixture
def pairs(seeded: Seeded) -> tuple[Tensor, Tensor]:
    clean = torch.rand(5, 3, 40, 33, generator=seeded(0))
    sigmas = torch.tensor([0.01, 0.03, 0.1, 0.2, 0.4]).reshape(5, 1, 1, 1)
    return clean, (clean + sigmas * torch.randn(clean.shape, generator=seeded(1))).clamp(0, 1)


def test_nodes_have_unit_length(tiny_drn: DistortionRelationNetwork, pairs: tuple[Tensor, Tensor]) -> None:
    assert torch.allclose(tiny_drn(*pairs).norm(dim=1), torch.ones(5), atol=1e-5)


def test_a_node_has_nine_values_for_each_of_its_kind(tiny_drn: DistortionRelationNetwork) -> None:
    assert tiny_drn.dim == 9 * tiny_drn.shape.kind_dim


@pytest.mark.parametrize("size", [(1, 1), (30, 48), (64, 17)])
def test_patches_of_any_size_have_a_node(
    tiny_drn: DistortionRelationNetwork, seeded: Seeded, size: tuple[int, int]
) -> None:
    """Of fewer than four small pairs, the trained part is a strip narrower than the five poolings halve."""
    clean = torch.rand(1, 3, *size, generator=seeded(0))
    assert float(tiny_drn(clean, 1 - clean).detach().norm()) == pytest.approx(1, abs=1e-5)


def test_a_node_has_unit_length_even_where_nothing_was_distorted(tiny_drn: DistortionRelationNetwork) -> None:
    clean = torch.full((1, 3, 32, 32), 0.5)
    node = tiny_drn(clean, clean).detach()
    assert torch.isfinite(node).all()
    assert float(node.norm()) == pytest.approx(1, abs=1e-5)


def test_the_cosine_of_nodes_is_the_cosine_of_kinds_times_that_of_strengths(
    tiny_drn: DistortionRelationNetwork, pairs: tuple[Tensor, Tensor]
) -> None:
    residual = (pairs[0] - pairs[1]) / 2 + 0.5
    kinds = torch.nn.functional.normalize(tiny_drn.kind(residual), dim=1)
    strengths = strength_code(residual_psnr(residual))
    nodes = tiny_drn(*pairs)
    expected = (kinds @ kinds.T) * (strengths @ strengths.T)
    assert torch.allclose(nodes @ nodes.T, expected, atol=1e-5)


def test_scaling_the_residual_changes_the_strength_and_not_the_kind(
    tiny_drn: DistortionRelationNetwork, seeded: Seeded
) -> None:
    damage = 0.1 * torch.randn(1, 3, 32, 48, generator=seeded(0)).clamp(-3, 3)
    weak, strong = 0.5 + damage / 8, 0.5 + damage
    assert torch.allclose(tiny_drn.kind(weak), tiny_drn.kind(strong), atol=1e-4)
    assert float(residual_psnr(weak) - residual_psnr(strong)) == pytest.approx(20 * math.log10(8), abs=1e-3)
    assert strength_code(residual_psnr(strong)).argmax() < strength_code(residual_psnr(weak)).argmax()


def test_a_residual_below_rounding_is_not_blown_up_to_a_pattern(
    tiny_drn: DistortionRelationNetwork, seeded: Seeded
) -> None:
    faint = 0.5 + 1e-5 * torch.randn(1, 3, 32, 32, generator=seeded(0))
    nothing = torch.full((1, 3, 32, 32), 0.5)
    assert torch.allclose(tiny_drn.kind(faint), tiny_drn.kind(nothing), atol=1e-2)


@pytest.mark.parametrize(("psnr_db", "strongest"), [(60, 8), (50, 8), (30, 4), (10, 0), (3, 0)])
def test_strength_is_coded_around_nine_centres_from_10_db_to_50_db(psnr_db: float, strongest: int) -> None:
    residual = torch.full((1, 3, 4, 5), 0.5 + 10 ** (-psnr_db / 20) / 2)
    assert float(residual_psnr(residual)) == pytest.approx(psnr_db, abs=1e-2)
    code = strength_code(residual_psnr(residual))
    assert code.shape == (1, 9)
    assert int(code.argmax()) == strongest
    assert float(code.norm()) == pytest.approx(1, abs=1e-6)


def test_strengths_further_apart_are_less_alike_and_never_opposed() -> None:
    """Were their cosine negative, the likest kind would get the lowest γ where strengths differ."""
    codes = strength_code(torch.linspace(10, 50, 17))
    alike = (codes @ codes.T)[0]
    assert (alike.diff() < 0).all()
    assert (alike >= 0).all()


@pytest.mark.parametrize("psnr_db", [15, 22, 30])
@pytest.mark.parametrize("apart_db", [5, 10, 20])
def test_the_cosine_of_strengths_falls_like_a_gaussian_of_their_distance(psnr_db: float, apart_db: float) -> None:
    one, other = strength_code(torch.tensor([psnr_db, psnr_db + apart_db], dtype=torch.float32))
    assert float(one @ other) == pytest.approx(math.exp(-(apart_db**2) / (4 * 8**2)), abs=0.1)


def test_the_scaled_affinity_falls_with_distance_and_the_literal_one_grows() -> None:
    x, y = torch.zeros(1, 6), torch.linspace(0, 3, 7)[:, None].expand(7, 6)
    scaled, literal = Affinity("scaled")(x, y)[0], Affinity("literal")(x, y)[0]
    assert (scaled.diff() < 0).all()
    assert (literal.diff() >= 0).all()
    assert float(literal[0]) == 0.5


def test_the_adjacency_joins_sample_and_memory(seeded: Seeded) -> None:
    a_p, a_m = torch.rand(2, 1, 3, generator=seeded(0)), torch.rand(3, 3, generator=seeded(1))
    adjacency = joined(a_p, a_m)
    assert torch.equal(adjacency[:, 0, 1:], a_p[:, 0])
    assert torch.equal(adjacency[:, 1:, 0], a_p[:, 0])
    assert torch.equal(adjacency[1, 1:, 1:], a_m)
    assert (adjacency[:, 0, 0] == 1).all()


def test_a_normalised_adjacency_has_spectral_radius_one(seeded: Seeded) -> None:
    a = torch.rand(1, 5, 5, generator=seeded(0))
    eigenvalues = torch.linalg.eigvalsh(normalised(a + a.transpose(1, 2))[0])
    assert float(eigenvalues.max()) == pytest.approx(1, abs=1e-5)


def test_memory_and_affinity_are_learned(tiny_drn: DistortionRelationNetwork, pairs: tuple[Tensor, Tensor]) -> None:
    tiny_drn.train()
    tiny_drn(*pairs).square().mul(torch.arange(float(tiny_drn.dim))).sum().backward()
    for name, parameter in tiny_drn.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_node_depends_on_the_memory_bank(tiny_drn: DistortionRelationNetwork, pairs: tuple[Tensor, Tensor]) -> None:
    before = tiny_drn(*pairs)
    with torch.no_grad():
        tiny_drn.memory.mul_(-1)
    assert not torch.allclose(before, tiny_drn(*pairs), atol=1e-3)


def test_a_pair_is_embedded_alone_the_same_as_in_a_batch(
    tiny_drn: DistortionRelationNetwork, pairs: tuple[Tensor, Tensor]
) -> None:
    together = tiny_drn(*pairs)
    alone = torch.cat([tiny_drn(c[None], d[None]) for c, d in zip(*pairs, strict=True)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_kind_can_be_read_off_a_node(tiny_drn: DistortionRelationNetwork, pairs: tuple[Tensor, Tensor]) -> None:
    clean, distorted = pairs
    with torch.no_grad():
        kind = torch.nn.functional.normalize(tiny_drn.kind((clean - distorted) / 2 + 0.5), dim=1)
        assert torch.allclose(kind_in(tiny_drn(clean, distorted)), kind, atol=1e-5)
