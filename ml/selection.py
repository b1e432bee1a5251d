"""Which of the known distortions a job may learn from: the paper's seven (§4.1), or all."""

from typing import Final, Literal

from ml.distortions import PAPERS
from ml.relation import Relation

Select = Literal["paper", "all", "top-k"]
TOP: Final = 7  # How many the paper chose, and `top-k` unless it is told otherwise.


def selected(relation: Relation, select: Select) -> Relation:
    """The target among those distortions that a job may learn from; of all, `top-k` then takes the best (`Guidance`).

    Raises ValueError where the paper's are asked for and a prior knows none of them.
    """
    names = relation.prototypes.names
    if select != "paper":
        return relation
    chosen = [name for name in names if name in PAPERS]
    if not chosen:
        raise ValueError(f"select: this prior knows none of the paper's distortions, but {', '.join(names)}")
    return relation.only(chosen)
