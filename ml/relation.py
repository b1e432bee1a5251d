"""The distortion-relation graph (Algorithm 1): how the DRN learns, and how a target is related to what it knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from ml.distortions import DISTORTIONS, distort
from ml.drn import DistortionRelationNetwork, residual_psnr
from ml.images import from_uint8
from ml.pairs import TargetPair
from ml.precision import autocast
from ml.sampling import dihedral, generator_for, pick, textured_crop

PATCH = 64
PATCH_MARGIN = 16
TEMPERATURE = 0.1  # τ of the prototypical loss
PATCHES_PER_PAIR = 24
LEAST_RELATION = 0.2  # Below this the best γ says that the target is like none of the known distortions.
LEAST_SPREAD = 0.1  # Where the best γ is less than this above the worst, the target is like all of them alike.


@dataclass(frozen=True)
class Prototypes:
    """The auxiliary nodes of the graph: one unit vector a distortion, with the samples it is the mean of."""

    names: list[str]
    vectors: Float[Tensor, "k d"]
    samples: Float[Tensor, "k n d"]
    psnr_db: Float[Tensor, "k"]


@dataclass(frozen=True)
class Relation:
    """The target among the auxiliary distortions.

    `gamma` is the cosine of the target's node with each prototype; `gamma_of_pair` the same for every pair alone.
    """

    prototypes: Prototypes
    target: Float[Tensor, "d"]
    pair_nodes: Float[Tensor, "p d"]
    gamma: Float[Tensor, "k"]
    gamma_of_pair: Float[Tensor, "p k"]
    target_psnr_db: float

    @property
    def weights(self) -> Float[Tensor, "k"]:
        """γ as weights of the auxiliary tasks: clamped at zero, summing to one; uniform where nothing is related."""
        positive = self.gamma.clamp_min(0)
        if self.verdict == "unrelated":
            return torch.full_like(positive, 1 / len(positive))
        return positive / positive.sum()

    @property
    def verdict(self) -> Literal["related", "unrelated"]:
        """Whether γ may prefer some tasks to others."""
        return "related" if self.fallback is None else "unrelated"

    @property
    def fallback(self) -> Literal["low", "flat"] | None:
        """Why γ prefers no task: it is low for all of them, or about the same for all; None where it does."""
        if float(self.gamma.max()) < LEAST_RELATION:
            return "low"
        if len(self.gamma) > 1 and float(self.gamma.max() - self.gamma.min()) < LEAST_SPREAD:
            return "flat"
        return None


def synthetic_patches(
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]], task: str, count: int, generator: Generator
) -> tuple[Float[Tensor, "{count} 3 h w"], Float[Tensor, "{count} 3 h w"]]:
    """Textured clean patches and the same distorted by `task`."""
    pairs = []
    for _ in range(count):
        image = clean_images[pick(len(clean_images), generator)]
        (wide,) = textured_crop([image], PATCH + 2 * PATCH_MARGIN, generator)
        wide = from_uint8(wide)
        both = torch.stack([wide, distort(task, wide, generator)])  # (2, 3, h, w)
        pairs.append(dihedral(both[:, :, PATCH_MARGIN:-PATCH_MARGIN, PATCH_MARGIN:-PATCH_MARGIN], generator))
    stacked = torch.stack(pairs, dim=1)  # (2, n, 3, h, w)
    return stacked[0], stacked[1]


def prototypical_loss(
    support: Float[Tensor, "k s d"], query: Float[Tensor, "k q d"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of each query node over its cosines with the distortions' mean support nodes.

    The paper names no loss for the DRN; this is the one of prototypical networks (Snell et al., NeurIPS 2017).
    """
    k, q, _ = query.shape
    prototypes = F.normalize(F.normalize(support, dim=2).mean(dim=1), dim=1)  # (k, d)
    logits = F.normalize(query, dim=2) @ prototypes.T / temperature  # (k, q, k)
    labels = torch.arange(k, device=query.device).repeat_interleave(q)  # (k q,)
    return F.cross_entropy(logits.flatten(0, 1), labels)


def drn_step(
    drn: DistortionRelationNetwork,
    optimizer: torch.optim.Optimizer,
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    shots: int,
    seed: int,
    step: int,
) -> float:
    """One episode: `shots` support and as many query samples of every distortion. Returns the loss."""
    device = drn.memory.device
    generator = generator_for(seed, "drn", step)
    drawn = [synthetic_patches(clean_images, task, 2 * shots, generator) for task in tasks]
    residual = torch.cat([(clean - distorted) / 2 + 0.5 for clean, distorted in drawn]).to(device)  # (k 2s, 3, h, w)
    with autocast(device):
        kinds = drn.kind(residual).float()  # (k 2s, d)
    support, query = kinds.unflatten(0, (len(tasks), 2 * shots)).split(shots, dim=1)  # (k, s, d) each
    loss = prototypical_loss(support, query, TEMPERATURE)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def compute_prototypes(
    drn: DistortionRelationNetwork,
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    count: int,
    seed: int,
) -> Prototypes:
    """The mean node of `count` samples per distortion, unit length (line 2 of Algorithm 1)."""
    drn.eval()
    samples, strengths = [], []
    for task in tasks:
        clean, distorted = synthetic_patches(clean_images, task, count, generator_for(seed, f"prototype/{task}", 0))
        samples.append(drn(clean.to(drn.memory.device), distorted.to(drn.memory.device)).cpu())
        strengths.append(residual_psnr((clean - distorted) / 2 + 0.5).mean())
    stacked = torch.stack(samples)  # (k, n, d)
    return Prototypes(list(tasks), F.normalize(stacked.mean(dim=1), dim=1), stacked, torch.stack(strengths))


@torch.no_grad()
def relate(
    drn: DistortionRelationNetwork,
    prototypes: Prototypes,
    pairs: Sequence[TargetPair],
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> Relation:
    """Embed the target pairs and compare them with every known distortion (lines 3–5 of Algorithm 1).

    A pair's node is the mean over patches, the target's the mean over pairs, both of unit length. Calls `tick` before
    each pair.
    """
    drn.eval()
    nodes, strengths = [], []
    for pair in pairs:
        tick()
        generator = generator_for(seed, f"relate/{pair.name}", 0)  # Whatever the order of the pairs.
        images = [pair.clean, pair.distorted]
        squares = [textured_crop(images, PATCH, generator) for _ in range(PATCHES_PER_PAIR)]
        clean = from_uint8(torch.stack([square[0] for square in squares]))  # (n, 3, h, w)
        distorted = from_uint8(torch.stack([square[1] for square in squares]))  # (n, 3, h, w)
        embedded = drn(clean.to(drn.memory.device), distorted.to(drn.memory.device)).cpu()  # (n, d)
        nodes.append(F.normalize(embedded.mean(dim=0), dim=0))
        strengths.append(residual_psnr((clean - distorted) / 2 + 0.5).mean())
    pair_nodes = torch.stack(nodes)  # (p, d)
    target = F.normalize(pair_nodes.mean(dim=0), dim=0)  # (d,)
    return Relation(
        prototypes,
        target,
        pair_nodes,
        gamma=prototypes.vectors @ target,
        gamma_of_pair=pair_nodes @ prototypes.vectors.T,
        target_psnr_db=float(torch.stack(strengths).mean()),
    )


def in_words(relation: Relation) -> str:
    """One plain sentence about what the target resembles."""
    names, gamma = relation.prototypes.names, relation.gamma
    order = gamma.argsort(descending=True).tolist()
    first, last = order[0], order[-1]
    if relation.fallback == "flat":
        return (
            f"Like every known distortion to much the same degree (γ from {gamma[last]:.2f} to {gamma[first]:.2f}),"
            " so no auxiliary task is preferred."
        )
    if relation.fallback == "low":
        return (
            f"Unlike every known distortion (the nearest, {DISTORTIONS[names[first]].words}, has γ {gamma[first]:.2f}),"
            " so no auxiliary task is preferred."
        )
    near = f"Mostly like {DISTORTIONS[names[first]].words} (γ {gamma[first]:.2f})"
    if len(order) == 1:
        return f"{near}, the one distortion that is known."
    if gamma[second := order[1]] >= 0.8 * gamma[first]:
        near += f" and {DISTORTIONS[names[second]].words} (γ {gamma[second]:.2f})"
    return f"{near}; least like {DISTORTIONS[names[last]].words} (γ {gamma[last]:.2f})."


def node_link_graph(
    relation: Relation,
    prior_version: str,
    shares: Float[Tensor, "k"] | None = None,
    guidance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The graph as JSON that networkx's `node_link_graph` loads; nodes carry a 2-D projection, links the cosine.

    `shares` are those of the tasks in a guided transfer, which became of γ by `guidance`; by default γ's own.
    """
    shares = relation.weights if shares is None else shares
    prototypes = relation.prototypes
    names = [*prototypes.names, "target"]
    nodes = torch.cat([prototypes.vectors, relation.target[None]])  # (k + 1, d)
    flat = prototypes.samples.flatten(0, 1)  # (k n, d)
    centre = flat.mean(dim=0)
    _, _, axes = torch.linalg.svd(flat - centre, full_matrices=False)

    def project(points: Float[Tensor, "n d"]) -> list[list[float]]:
        flat_points = (points - centre) @ axes[:2].T  # (n, 2)
        return [[round(float(x), 4), round(float(y), 4)] for x, y in flat_points]

    positions = project(nodes)
    order = relation.gamma.argsort(descending=True).tolist()
    spread = relation.gamma_of_pair
    auxiliary = [
        {
            "id": name,
            "kind": "auxiliary",
            "words": DISTORTIONS[name].words if name in DISTORTIONS else name,
            "x": positions[i][0],
            "y": positions[i][1],
            "gamma": float(relation.gamma[i]),
            "gamma_std": float(spread[:, i].std(correction=0)),
            "gamma_min": float(spread[:, i].min()),
            "gamma_max": float(spread[:, i].max()),
            "rank": order.index(i) + 1,
            "weight": float(shares[i]),
            "psnr_db": float(prototypes.psnr_db[i]),
            "samples": project(prototypes.samples[i][:40]),
        }
        for i, name in enumerate(prototypes.names)
    ]
    target = {
        "id": "target",
        "kind": "target",
        "words": "your images",
        "x": positions[-1][0],
        "y": positions[-1][1],
        "psnr_db": relation.target_psnr_db,
        "samples": project(relation.pair_nodes),
    }
    cosines = nodes @ nodes.T  # (k + 1, k + 1)
    links: list[dict[str, Any]] = [
        {"source": names[i], "target": names[j], "cosine": float(cosines[i, j])}
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    for link, share in zip([link for link in links if link["target"] == "target"], shares.tolist(), strict=True):
        link["weight"] = share
    facts = {
        "target": "target",
        "metric": "cosine",
        "verdict": relation.verdict,
        "fallback": relation.fallback,
        "guidance": None if guidance is None else dict(guidance),
        "sentence": in_words(relation),
        "prior": prior_version,
        "ranking": [prototypes.names[i] for i in order],
        "projection": "pca",
    }
    return {"directed": False, "multigraph": False, "graph": facts, "nodes": [*auxiliary, target], "links": links}
