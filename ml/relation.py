"""The distortion-relation graph (Algorithm 1): how the DRN learns, and how a target is related to what it knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ml.auxiliary import distorted_crops
from ml.chance import chance_of
from ml.distortions import DISTORTIONS
from ml.drn import DistortionRelationNetwork, residual_psnr
from ml.edges import Edges, similarity
from ml.images import from_uint8
from ml.pairs import TargetPair
from ml.precision import autocast
from ml.residual import area_share, displacement_share
from ml.sampling import generator_for, textured_crop

PATCH = 64
TRIES = 4  # Of a synthetic patch: the most textured is taken.
TEMPERATURE = 0.1  # τ of the prototypical loss
PATCHES_PER_PAIR = 24
LEAST_RELATION = 0.2  # Below this the best γ says that the target is like none of the known distortions.
NONE_OF_THESE = " But of the distortions that are learnt from none is like it, so none of them is preferred."
LEARNS_NOTHING = " Without a transfer, this job learns from none of them."
LEAST_SPREAD = 0.1  # Where the best γ is less than this above the worst, the target is like all of them alike.
# Above these a target is like none of them, whatever γ; between what known and foreign ones have (adr/0030).
MOST_IN_AREAS = 0.7
MOST_DISPLACED = 0.6


@dataclass(frozen=True)
class Prototypes:
    """The auxiliary nodes of the graph: one unit vector a distortion, with the samples it is the mean of."""

    names: list[str]
    vectors: Float[Tensor, "k d"]
    samples: Float[Tensor, "k n d"]
    psnr_db: Float[Tensor, "k"]

    def only(self, places: Sequence[int]) -> "Prototypes":
        """Those at the given places, in that order."""
        at = list(places)
        return Prototypes([self.names[i] for i in at], self.vectors[at], self.samples[at], self.psnr_db[at])

    def joined_by(self, others: "Prototypes") -> "Prototypes":
        """These, followed by others of the same network and with as many samples."""
        return Prototypes(
            self.names + others.names,
            torch.cat([self.vectors, others.vectors]),
            torch.cat([self.samples, others.samples]),
            torch.cat([self.psnr_db, others.psnr_db]),
        )


@dataclass(frozen=True)
class Relation:
    """The target among the auxiliary distortions.

    `gamma` is how alike the target's node and each prototype are, by `edges`; `gamma_of_pair` the same for every pair
    alone.
    """

    prototypes: Prototypes
    target: Float[Tensor, "d"]
    pair_nodes: Float[Tensor, "p d"]
    gamma: Float[Tensor, "k"]
    gamma_of_pair: Float[Tensor, "p k"]
    target_psnr_db: float
    edges: Edges = "cosine"
    in_areas: float = 0.0  # Shares of the difference that the nodes do not tell of, the median over the pairs.
    displaced: float = 0.0
    # To all that are known, where this is the relation to some of them.
    cosine_of_all: Float[Tensor, "n"] | None = None
    gain_db_of_pair: Float[Tensor, "p k"] | None = None  # What each task's expert gains on each pair, where there are.

    def only(self, names: Sequence[str]) -> "Relation":
        """The target among some of the distortions, which is what a job learns from."""
        places = [self.prototypes.names.index(name) for name in names]
        return replace(
            self,
            prototypes=self.prototypes.only(places),
            gamma=self.gamma[places],
            gamma_of_pair=self.gamma_of_pair[:, places],
            cosine_of_all=self.cosine if self.cosine_of_all is None else self.cosine_of_all,
            gain_db_of_pair=None if self.gain_db_of_pair is None else self.gain_db_of_pair[:, places],
        )

    @property
    def cosine(self) -> Float[Tensor, "k"]:
        """γ by the paper's edges, of which it is known how low and how flat it is where nothing is related."""
        if self.edges == "cosine":
            return self.gamma
        return similarity(self.target[None], self.prototypes.vectors, "cosine")[0]

    @property
    def gain_db(self) -> Float[Tensor, "k"] | None:
        """Transferability: the mean over the pairs of what a read-out of each task's expert gains."""
        return None if self.gain_db_of_pair is None else self.gain_db_of_pair.mean(dim=0)

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
    def fallback(self) -> Literal["areas", "displaced", "low", "flat"] | None:
        """Why γ prefers no task; None where it does.

        The target changes whole areas, or moves the content, which the nodes do not tell of; or the cosine is low for
        all of these distortions, or about the same for all that are known.
        """
        known = self.cosine if self.cosine_of_all is None else self.cosine_of_all
        if self.in_areas > MOST_IN_AREAS:
            return "areas"
        if self.displaced > MOST_DISPLACED:
            return "displaced"
        if float(self.cosine.max()) < LEAST_RELATION:
            return "low"
        if len(known) > 1 and float(known.max() - known.min()) < LEAST_SPREAD:
            return "flat"
        return None


def prototypical_loss(
    support: Float[Tensor, "k s d"], query: Float[Tensor, "k q d"], temperature: float, edges: Edges = "cosine"
) -> Float[Tensor, ""]:
    """Cross-entropy of each query node over how alike it is to the distortions' mean support nodes.

    The paper names no loss for the DRN; this is the one of prototypical networks (Snell et al., NeurIPS 2017).
    """
    k, q, _ = query.shape
    prototypes = F.normalize(F.normalize(support, dim=2).mean(dim=1), dim=1)  # (k, d)
    nodes = F.normalize(query, dim=2).flatten(0, 1)  # (k q, d)
    logits = similarity(nodes, prototypes, edges) / temperature  # (k q, k)
    labels = torch.arange(k, device=query.device).repeat_interleave(q)  # (k q,)
    return F.cross_entropy(logits, labels)


def drn_step(
    drn: DistortionRelationNetwork,
    optimizer: torch.optim.Optimizer,
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]],
    tasks: Sequence[str],
    shots: int,
    seed: int,
    step: int,
) -> Float[Tensor, ""]:
    """One episode: `shots` support and as many query samples of every distortion. Returns the loss."""
    device = drn.memory.device
    names = [task for task in tasks for _ in range(2 * shots)]
    chance = chance_of(seed, f"drn/{step}", range(len(names)), device)
    clean, distorted = distorted_crops(clean_images, names, PATCH, chance, TRIES)
    residual = (clean - distorted) / 2 + 0.5  # (k 2s, 3, h, w)
    with autocast(device):
        kinds = drn.kind(residual).float()  # (k 2s, d)
    support, query = kinds.unflatten(0, (len(tasks), 2 * shots)).split(shots, dim=1)  # (k, s, d) each
    loss = prototypical_loss(support, query, TEMPERATURE, drn.shape.edges)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


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
        chance = chance_of(seed, f"prototype/{task}", range(count), drn.memory.device)
        clean, distorted = distorted_crops(clean_images, [task] * count, PATCH, chance, TRIES)
        samples.append(drn(clean, distorted).cpu())
        strengths.append(residual_psnr((clean - distorted) / 2 + 0.5).mean().cpu())
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
    nodes, strengths, in_areas, displaced = [], [], [], []
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
        in_areas.append(area_share(clean, distorted))
        displaced.append(displacement_share(clean, distorted))
    pair_nodes = torch.stack(nodes)  # (p, d)
    target = F.normalize(pair_nodes.mean(dim=0), dim=0)  # (d,)
    edges = drn.shape.edges
    return Relation(
        prototypes,
        target,
        pair_nodes,
        gamma=similarity(target[None], prototypes.vectors, edges)[0],
        gamma_of_pair=similarity(pair_nodes, prototypes.vectors, edges),
        target_psnr_db=float(torch.stack(strengths).mean()),
        edges=edges,
        in_areas=median(in_areas),
        displaced=median(displaced),
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
    if relation.fallback == "areas":
        return (
            f"Unlike every known distortion: {relation.in_areas:.0%} of the difference is whole areas that are "
            "brighter, darker or of another colour, so no auxiliary task is preferred."
        )
    if relation.fallback == "displaced":
        return (
            f"Unlike every known distortion: {relation.displaced:.0%} of the difference is content out of place, so no "
            "auxiliary task is preferred. If that is not what the device does, the pairs are not aligned."
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


def _consequence(relation: Relation, tasks: Relation, *, by_gain: bool) -> str:
    """What follows for the transfer, as further sentences; `by_gain` where what tasks promise decides."""
    return ("" if tasks.verdict == relation.verdict else NONE_OF_THESE) + _promise(tasks, by_gain=by_gain)


def _promise(tasks: Relation, *, by_gain: bool) -> str:
    """What is best practised, as a further sentence; none where nothing is preferred or nothing is known of gains."""
    if tasks.gain_db is None or tasks.verdict == "unrelated":
        return ""
    if not (tasks.gain_db > 0).any():
        return " None of them promises to help at a first look" + (", so none is preferred." if by_gain else ".")
    best = int(tasks.gain_db.argmax())
    words = DISTORTIONS[tasks.prototypes.names[best]].words
    return f" Learning to undo {words} promises to help most ({tasks.gain_db[best]:+.1f} dB at a first look)."


def node_link_graph(
    relation: Relation,
    prior_version: str,
    tasks: Relation | None = None,
    shares: Float[Tensor, "k"] | None = None,
    guidance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The graph as JSON that networkx's `node_link_graph` loads; nodes carry a 2-D projection, links the cosine.

    `tasks` is the target among those distortions that may be learnt from, by default all; others weigh nothing.
    `shares` are those of these in the transfer, by default γ's own, and zeros where there is none; `guidance` says how
    they became of the relation.
    """
    tasks = tasks or relation
    learns = shares is None or bool((shares > 0).any())
    by_gain = guidance is None or guidance["prefer"] == "transferability"
    share_of = dict.fromkeys(relation.prototypes.names, 0.0)
    share_of |= zip(tasks.prototypes.names, (tasks.weights if shares is None else shares).tolist(), strict=True)
    prototypes = relation.prototypes
    names = [*prototypes.names, "target"]
    nodes = torch.cat([prototypes.vectors, relation.target[None]])  # (k + 1, d)
    flat = prototypes.samples.flatten(0, 1)  # (k n, d)
    centre = flat.mean(dim=0)
    axes = torch.linalg.eigh((flat - centre).T @ (flat - centre)).eigenvectors[:, -2:].flip(1)  # (d, 2), by PCA

    def project(points: Float[Tensor, "n d"]) -> list[list[float]]:
        flat_points = (points - centre) @ axes  # (n, 2)
        return [[round(float(x), 4), round(float(y), 4)] for x, y in flat_points]

    positions = project(nodes)
    order = relation.gamma.argsort(descending=True).tolist()
    spread, gains = relation.gamma_of_pair, tasks.gain_db_of_pair
    gains_of = {} if gains is None else dict(zip(tasks.prototypes.names, gains.T, strict=True))  # name → (p,)
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
            "gain_db": float(gains_of[name].mean()) if name in gains_of else None,
            "gain_db_std": float(gains_of[name].std(correction=0)) if name in gains_of else None,
            "rank": order.index(i) + 1,
            "selected": share_of[name] > 0,
            "weight": share_of[name],
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
    for link in links:
        if link["target"] == "target":
            link["weight"] = share_of[link["source"]]
    facts = {
        "target": "target",
        "metric": relation.edges,
        "verdict": tasks.verdict,
        "fallback": tasks.fallback,
        "guidance": None if guidance is None else dict(guidance),
        "in_areas": round(relation.in_areas, 4),
        "displaced": round(relation.displaced, 4),
        "sentence": in_words(relation) + (_consequence(relation, tasks, by_gain=by_gain) if learns else LEARNS_NOTHING),
        "prior": prior_version,
        "ranking": [prototypes.names[i] for i in order],
        "projection": "pca",
    }
    return {"directed": False, "multigraph": False, "graph": facts, "nodes": [*auxiliary, target], "links": links}
