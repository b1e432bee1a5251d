"""The trainings behind all tables and figures: what each is called, and how it is made and measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from benchmarks.devices import Device
from benchmarks.paper.materials import Materials
from benchmarks.paper.networks import multiplications
from benchmarks.paper.planning import About, Planned
from benchmarks.paper.quality import measured, summary
from benchmarks.paper.real_esrgan import RRDBNet, restore
from benchmarks.paper.scales import Extent
from benchmarks.paper.schemes import META, SCHEMES, Scheme, Training, single_task, train, training_of
from ml.backbones import BackboneName
from ml.dip import deep_image_prior
from ml.distortions import PAPERS
from ml.drn import DrnShape
from ml.edges import EDGES, Edges, similarity
from ml.evaluate import quality_of
from ml.guidance import Preference
from ml.lpips import Lpips
from ml.precision import device
from ml.relation import Relation, node_link_graph

BACKWARD = 3  # A step of training computes about three times what using the network does.
SECOND_ORDER = 2.5  # A step of MAML against one of pre-training.


@dataclass(frozen=True)
class Study:
    """What was asked for; `backbones` and `schemes` are those of Table 1, `backbone` is that of everything else.

    `prefer` is by what guided schemes prefer tasks; Table 3 compares relation networks, and is always by likeness.
    """

    materials: Materials
    targets: Sequence[Device]
    backbones: Sequence[BackboneName]
    backbone: BackboneName
    seeds: Sequence[int]
    shots: int
    prefer: Preference = "transferability"
    real_esrgan: RRDBNet | None = None
    lpips: Lpips | None = None
    schemes: Sequence[Scheme] = SCHEMES
    tasks: ClassVar[Sequence[str]] = PAPERS

    @property
    def extent(self) -> Extent:
        return self.materials.extent

    @property
    def drn_shape(self) -> DrnShape:
        """What relation networks that are trained for the occasion have in common."""
        return DrnShape(width=self.extent.drn_width)

    @property
    def curve_shots(self) -> Sequence[int]:
        return self.extent.curve_shots

    def shots_of(self, target: Device, shots: int) -> int:
        """How many pairs are learnt from, where a target may have fewer."""
        return min(shots, len(target.train))

    def input(self, target: Device) -> Planned:
        """What doing nothing has."""

        def run() -> dict[str, Any]:
            return measured(self.materials.unseen(target), self.lpips) | {"train_pairs": len(target.train)}

        return self._measuring(target, "input", 1e6 * len(target.test), run)

    def training(
        self, backbone: BackboneName, scheme: Scheme, target: Device, seed: int, shots: int | None = None
    ) -> Planned:
        """A scheme of Table 1 on one target."""
        pairs = self.shots_of(target, shots or self.shots)

        def run() -> dict[str, Any]:
            relation = self.materials.relation(target, seed, pairs)
            training = training_of(scheme, backbone, seed, relation, self.prefer)
            return self._train(target, pairs, training)

        about: About = {"kind": "training", "backbone": backbone, "scheme": scheme, "shots": pairs}
        return self._planned_training(target, backbone, seed, scheme, about, run)

    def on_one_task(self, task: str, target: Device, seed: int) -> Planned:
        """Pre-training on one auxiliary task alone (Fig. 6)."""
        pairs = self.shots_of(target, self.shots)

        def run() -> dict[str, Any]:
            relation = self.materials.relation(target, seed, pairs)
            return self._train(target, pairs, single_task(task, self.backbone, seed, relation))

        about: About = {"kind": "one task", "backbone": self.backbone, "task": task, "shots": pairs}
        return self._planned_training(target, self.backbone, seed, "pretrain", about, run)

    def by_own_network(self, shape: DrnShape, target: Device, seed: int) -> Planned:
        """γ-guided MAML whose γ is that of a relation network trained for the occasion (Table 3)."""
        pairs = self.shots_of(target, self.shots)

        def run() -> dict[str, Any]:
            relation = self.materials.own_relation(shape, target, seed, pairs)
            training = training_of("drtl-maml", self.backbone, seed, relation, "likeness")
            return self._train(target, pairs, training) | {"gamma": by_name(relation), "fallback": relation.fallback}

        variant: About = {"memory_nodes": shape.memory_nodes, "affinity": shape.affinity}
        about: About = {"kind": "memory", "backbone": self.backbone, **variant, "shots": pairs}
        return self._planned_training(target, self.backbone, seed, "drtl-maml", about, run)

    def graph(self, target: Device, seed: int) -> Planned:
        """The relation graph by the shipped prior (Fig. 4), and γ by each of the edges between its nodes."""
        pairs = self.shots_of(target, self.shots)

        def run() -> dict[str, Any]:
            relation = self.materials.relation(target, seed, pairs)
            prototypes = relation.prototypes
            gamma = {
                edges: dict(zip(prototypes.names, alike(relation.target, prototypes.vectors, edges), strict=True))
                for edges in EDGES
            }
            by_gamma = {"prefer": "likeness"}
            graph = node_link_graph(relation, self.materials.prior.version, guidance=by_gamma)
            return {"gamma": gamma, "graph": graph}

        about: About = {"kind": "graph", "target": target.name, "shots": pairs, "seed": seed}
        return Planned(about, "graph", 1e9 * pairs, 0, run)

    def read_out(self, target: Device, seed: int) -> Planned:
        """What a read-out of each task's expert gains on the pairs (Fig. 6)."""
        pairs = self.shots_of(target, self.shots)

        def run() -> dict[str, Any]:
            relation = self.materials.relation(target, seed, pairs)
            if relation.gain_db is None:
                raise ValueError(
                    f"prior: {self.materials.prior.version} has no experts; `drtl prior extend` trains them"
                )
            return {"gain_db": dict(zip(relation.prototypes.names, relation.gain_db.tolist(), strict=True))}

        about: About = {"kind": "read-out", "target": target.name, "shots": pairs, "seed": seed}
        return Planned(about, "read-out", 1e9 * pairs, 0, run)

    def relation_network(self, shape: DrnShape, seed: int) -> Planned:
        """A relation network trained for the occasion, all under the same steps."""

        def run() -> dict[str, Any]:
            self.materials.own_network(shape, seed)
            return {"steps": self.extent.drn_steps}

        variant: About = {"memory_nodes": shape.memory_nodes, "affinity": shape.affinity, "edges": shape.edges}
        about: About = {"kind": "relation network", **variant, "seed": seed}
        cost = self.extent.drn_steps * 42 * 6e8 * self.extent.drn_width**2 * BACKWARD
        return Planned(about, "relation network", cost, 0, run)

    def own_gamma(self, edges: Edges, target: Device, seed: int) -> Planned:
        """γ by a relation network that was trained with these edges (Fig. 6)."""
        pairs = self.shots_of(target, self.shots)
        shape = replace(self.drn_shape, edges=edges)
        about: About = {"kind": "own gamma", "edges": edges, "target": target.name, "shots": pairs, "seed": seed}
        return Planned(
            about,
            "graph",
            1e9 * pairs,
            0,
            lambda: {"gamma": by_name(self.materials.own_relation(shape, target, seed, pairs))},
        )

    def deep_image_prior(self, target: Device, seed: int) -> Planned:
        """DIP on the first of the unseen images (Table 2)."""

        def run() -> dict[str, Any]:
            unseen = self.materials.unseen(target)[: self.extent.dip_images]

            def fitted(distorted: Tensor) -> Tensor:
                return deep_image_prior(distorted.to(device()), self.extent.dip, seed).cpu()

            return measured(unseen, self.lpips, fitted)

        side = self.extent.plain.side or 1024
        work = self.extent.dip.steps * 3e4 * (self.extent.dip.width / 32) ** 2 * side**2 * BACKWARD
        about: About = {"kind": "dip", "target": target.name, "seed": seed}
        return Planned(about, "dip", work * self.extent.dip_images, 0, run)

    def by_real_esrgan(self, target: Device) -> Planned:
        """Real-ESRGAN on the unseen images (Table 2). Raises ValueError where no weights were handed in."""
        network = self.real_esrgan
        if network is None:
            raise ValueError("real_esrgan: no weights were handed in")
        cost = 2e7 * (self.extent.plain.side or 1024) ** 2 * len(target.test)

        def run() -> dict[str, Any]:
            enlarged = measured(
                self.materials.unseen(target), self.lpips, lambda distorted: restore(network, distorted)
            )
            return enlarged | {"enlarges": network.scale}

        return self._measuring(target, "real-esrgan", cost, run)

    def _train(self, target: Device, shots: int, training: Training) -> dict[str, Any]:
        scale = self.extent.training(training.backbone)
        bench = self.materials.bench(target, training.seed, shots, scale)
        network, facts = train(bench, training, self.extent)
        qualities = quality_of(network, bench.unseen, self.lpips)
        return summary(bench.unseen, qualities) | facts

    def _planned_training(
        self,
        target: Device,
        backbone: BackboneName,
        seed: int,
        scheme: Scheme,
        about: About,
        run: Callable[[], dict[str, Any]],
    ) -> Planned:
        scale = self.extent.training(backbone)
        transfers = scheme != "baseline"
        weight = SECOND_ORDER if scheme in META else 1
        steps = scale.finetune_steps + transfers * scale.transfer_steps
        weighed = scale.finetune_steps + transfers * weight * scale.transfer_steps
        learnt_from = weighed * scale.batch * self.extent.schedules.transfer.crop**2 * BACKWARD
        shown = len(target.test) * (scale.side or 1024) ** 2
        unshuffle = self.extent.unshuffle_of(backbone)
        per_pixel = multiplications(backbone, unshuffle, cut_down=self.extent.cut_down)
        named = about | {"target": target.name, "seed": seed}
        return Planned(named, f"{backbone}, {'meta' * (scheme in META)}", per_pixel * (learnt_from + shown), steps, run)

    def _measuring(self, target: Device, kind: str, cost: float, run: Callable[[], dict[str, Any]]) -> Planned:
        return Planned({"kind": kind, "target": target.name}, kind, cost, 0, run)


def alike(target: Float[Tensor, "d"], vectors: Float[Tensor, "k d"], edges: Edges) -> list[float]:  # noqa: F821 - a shape
    """γ of every prototype."""
    values: list[float] = similarity(target[None], vectors, edges)[0].tolist()
    return values


def by_name(relation: Relation) -> dict[str, float]:
    return dict(zip(relation.prototypes.names, relation.gamma.tolist(), strict=True))
