"""How γ acts on a transfer: which auxiliary tasks take part, how often each is drawn, what its samples weigh."""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ml.relation import Relation

Acting = Literal["weight", "sample"]
Preference = Literal["transferability", "likeness"]
GAIN_TEMPERATURE_DB: Final = 0.1  # A task whose expert gains 0.23 dB less has a tenth of the share.


@dataclass(frozen=True)
class Guidance:
    """What a user may choose about how the relation acts.

    `by` weight: tasks are drawn alike and their losses weighted; by sample: they are drawn in that proportion and weigh
    alike. `prefer` says for what: transferability, the gain in dB of the tasks' experts on the pairs, or likeness, the
    paper's γ. `temperature` τ makes shares of either as softmax(·/τ); None is `GAIN_TEMPERATURE_DB` for gains and
    leaves γ as it is. Only the `top_k` best tasks take part, where None lets all. Raises ValueError for a temperature
    or a number of tasks that is not positive.
    """

    by: Acting = "sample"
    temperature: float | None = None
    top_k: int | None = None
    prefer: Preference = "transferability"

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature: {self.temperature} is not above zero")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} leaves no task")


@dataclass(frozen=True)
class TaskMix:
    """What a transfer learns from: `gamma` weighs the samples of each task; tasks are drawn by `chances`, or alike."""

    gamma: Float[Tensor, "k"]
    chances: Float[Tensor, "k"] | None = None

    def shares(self) -> Float[Tensor, "k"]:
        """The share of each task in the transfer; they sum to one."""
        share = self.gamma if self.chances is None else self.gamma * self.chances
        return share / share.sum()


def task_shares(relation: Relation, guidance: Guidance) -> Float[Tensor, "k"]:
    """The share of each task in a guided transfer; they sum to one.

    A target that is related to nothing, or to everything alike (`Relation.verdict`), gives all tasks the same share
    whatever the options: sharpened, differences that mean nothing would decide. So does one on which no expert gains,
    a distortion weaker than all that they know: who does least harm is not who teaches most. A task of γ ≤ 0 has none
    where likeness is preferred.
    """
    score = _score(relation, guidance)
    if score is None:
        return torch.full_like(relation.gamma, 1 / len(relation.gamma))
    if preference(relation, guidance) == "transferability":
        shares = (score.double() / (guidance.temperature or GAIN_TEMPERATURE_DB)).softmax(dim=0).float()
    elif guidance.temperature is not None:
        logits = (score.double() / guidance.temperature).masked_fill(score <= 0, -torch.inf)
        shares = logits.softmax(dim=0).float()
    else:
        shares = relation.weights
    takes_part = taking_part(relation, guidance)
    return shares if takes_part.all() else shares * takes_part / (shares * takes_part).sum()


def taking_part(relation: Relation, guidance: Guidance) -> Float[Tensor, "k"]:
    """One for each of the `top_k` best tasks, zero for the others; all take part where nothing tells which is best."""
    score = _score(relation, guidance)
    if score is None or guidance.top_k is None or guidance.top_k >= len(score):
        return torch.ones_like(relation.gamma)
    return torch.zeros_like(relation.gamma).index_fill(0, score.topk(guidance.top_k).indices, 1.0)


def _score(relation: Relation, guidance: Guidance) -> Float[Tensor, "k"] | None:
    """How good each task is for the target, by gain or by γ; None where that tells nothing (`task_shares`)."""
    if relation.verdict == "unrelated":
        return None
    if preference(relation, guidance) == "likeness":
        return relation.gamma
    gain_db = relation.gain_db
    return gain_db if gain_db is not None and (gain_db > 0).any() else None


def preference(relation: Relation, guidance: Guidance) -> Preference:
    """What decides: likeness where that is chosen, or where the prior has no experts to assess tasks by."""
    return "likeness" if relation.gain_db_of_pair is None else guidance.prefer


def guided(relation: Relation, guidance: Guidance) -> TaskMix:
    """The mix of tasks that leads to the target, each with its share.

    Where losses are weighted, tasks without a share are not drawn either: their samples would be computed for nothing.
    """
    shares = task_shares(relation, guidance)
    if guidance.by == "sample":
        return TaskMix(torch.ones_like(shares), shares)
    takes_part = (shares > 0).float()
    return TaskMix(shares, None if takes_part.all() else takes_part / takes_part.sum())


def uniform(relation: Relation, choice: Guidance | None = None) -> TaskMix:
    """γ ≡ 1: plain pre-training (Eq. 2) and plain MAML (Eq. 4), on all tasks, or on those that `choice` takes."""
    alike = torch.ones_like(relation.gamma)
    takes_part = alike if choice is None else taking_part(relation, choice)
    return TaskMix(alike, None if takes_part.all() else takes_part / takes_part.sum())
