"""What a job finds out about its target before it trains. Kept in checkpoints: a resumed job looks it up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from ml import checkpoint
from ml.match import MatchReference, fingerprint
from ml.options import TrainingOptions
from ml.pairs import TargetPair
from ml.precision import device
from ml.prior import Prior
from ml.relation import Relation, relate
from ml.selection import selected
from ml.transferability import assessed

PREFIX = "findings/"


@dataclass(frozen=True)
class Findings:
    """The target among all known distortions, among those that it may learn from, and what its images look like."""

    relation: Relation
    tasks: Relation
    reference: MatchReference | None

    def tensors(self) -> dict[str, Tensor]:
        """What `recalled` reads again, with `facts`; the rest follows from the prior and the options."""
        nodes = {"target": self.relation.target, "pair_nodes": self.relation.pair_nodes}
        gamma = {"gamma": self.relation.gamma, "gamma_of_pair": self.relation.gamma_of_pair}
        gains = {} if self.tasks.gain_db_of_pair is None else {"gain_db_of_pair": self.tasks.gain_db_of_pair}
        return {f"{PREFIX}{name}": value for name, value in (nodes | gamma | gains).items()}

    def facts(self) -> dict[str, Any]:
        relation = self.relation
        shares = {"in_areas": relation.in_areas, "displaced": relation.displaced}
        reference = None if self.reference is None else asdict(self.reference)
        return {"findings": {"target_psnr_db": relation.target_psnr_db, **shares, "reference": reference}}


def find_out(
    prior: Prior,
    pairs: Sequence[TargetPair],
    sent: Sequence[UInt8[Tensor, "3 _ _"]],
    options: TrainingOptions,
    tick: Callable[[], None],
) -> Findings:
    """Relate the pairs to the prior's distortions. `sent` are the distorted images at the size of later requests.

    Calls `tick` every so often.
    """
    relation = relate(prior.drn.to(device()), prior.prototypes, pairs, options.seed, tick)
    tick()
    tasks = selected(relation, options.select)
    if options.chooses:
        tasks = assessed(tasks, prior.experts, pairs, options.seed, tick)
    return Findings(relation, tasks, fingerprint(sent, tick))


def recalled(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], prior: Prior, options: TrainingOptions
) -> Findings:
    """The findings in what a checkpoint holds."""
    kept, found = checkpoint.under(tensors, PREFIX), facts["findings"]
    gains, reference = kept.get("gain_db_of_pair"), found["reference"]
    relation = Relation(
        prior.prototypes,
        kept["target"],
        kept["pair_nodes"],
        kept["gamma"],
        kept["gamma_of_pair"],
        found["target_psnr_db"],
        prior.drn.shape.edges,
        found["in_areas"],
        found["displaced"],
    )
    tasks = replace(selected(relation, options.select), gain_db_of_pair=gains)
    return Findings(relation, tasks, None if reference is None else MatchReference(**reference))
