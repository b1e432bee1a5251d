"""What the trainings of a study share: images, relation graphs and relation networks, made when first needed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from torch import Tensor

from benchmarks.devices import Device
from benchmarks.paper.scales import Extent
from benchmarks.trials import LEAST_SIDE, Bench, Scale, related_tasks, shown
from ml import checkpoint
from ml.distortions import PAPERS
from ml.drn import DistortionRelationNetwork, DrnShape
from ml.job import clean_images
from ml.pairs import Split, TargetPair
from ml.precision import device
from ml.prior import Prior
from ml.prior_images import generated_images, load_photographs
from ml.prior_loops import train_drn
from ml.relation import Relation, compute_prototypes, relate


@dataclass
class Materials:
    """`folder` keeps relation networks; `clean` are the photographs that auxiliary distortions are applied to."""

    folder: Path
    extent: Extent
    clean: Path | None
    prior: Prior
    after_step: Callable[[], None]
    _relations: dict[tuple[str, int, int], Relation] = field(default_factory=dict)
    _networks: dict[tuple[DrnShape, int], DistortionRelationNetwork] = field(default_factory=dict)

    def bench(self, target: Device, seed: int, shots: int, scale: Scale) -> Bench:
        """Trainings on the first `shots` pairs of a target. Auxiliary tasks are made of the images that a job takes."""
        few = Device(target.name, target.train[:shots], target.test)
        own = [pair.clean for pair in few.train if min(pair.clean.shape[1:]) >= LEAST_SIDE]
        images = [*foreign_images(self.clean, seed), *own]
        return Bench(few, scale, images, PAPERS, self.unseen(target), self.after_step)

    def unseen(self, target: Device) -> list[TargetPair]:
        """What all results on a target are measured on."""
        return shown(target.test, self.extent.plain.side)

    def relation(self, target: Device, seed: int, shots: int) -> Relation:
        """By the prior, to the paper's distortions, with what their experts gain."""
        key = (target.name, seed, shots)
        if key not in self._relations:
            self._relations[key] = related_tasks(self.prior, target.train[:shots], seed)
        return self._relations[key]

    def own_relation(self, shape: DrnShape, target: Device, seed: int, shots: int) -> Relation:
        """By a relation network trained for the occasion."""
        drn = self.own_network(shape, seed)
        prototypes = compute_prototypes(drn, photographs(self.clean, seed), PAPERS, self.extent.drn_samples, seed)
        return relate(drn, prototypes, target.train[:shots], seed)

    def own_network(self, shape: DrnShape, seed: int) -> DistortionRelationNetwork:
        """Trained once, and kept beside the records."""
        key = (shape, seed)
        if key not in self._networks:
            variant = f"{shape.affinity}-{shape.edges}-{shape.memory_nodes}-nodes"
            path = self.folder / "networks" / f"{variant}-seed-{seed}.safetensors"
            if path.exists():
                drn = DistortionRelationNetwork(shape)
                drn.load_state_dict(checkpoint.load(path)[0])
            else:
                drn, _ = train_drn(shape, photographs(self.clean, seed), list(PAPERS), seed, self.extent.drn_steps)
                path.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save(path, drn.state_dict(), asdict(shape))
            self._networks[key] = drn.to(device()).eval()
        return self._networks[key]


@cache
def foreign_images(clean: Path | None, seed: int) -> list[Tensor]:
    """What auxiliary distortions are applied to besides the target's own clean images."""
    return clean_images(Split("pairs", [], []), clean, LEAST_SIDE, seed)


@cache
def photographs(clean: Path | None, seed: int) -> list[Tensor]:
    """What relation networks learn from, no image of a target: those of a folder, else dead leaves."""
    return load_photographs([clean]) if clean is not None else generated_images(seed)
