"""Which of the known distortions a job learns from: the paper's seven, all, or those most like the target (§4.1)."""

from typing import Literal

from ml.distortions import PAPERS
from ml.relation import Relation

Select = Literal["paper", "all", "top-k"]


def selected(relation: Relation, select: Select, k: int) -> Relation:
    """The target among the auxiliary tasks of a job, of which there are `k` with `top-k`, or all if they are fewer.

    Raises ValueError where a prior knows none of the paper's.
    """
    names = relation.prototypes.names
    chosen: list[str]
    match select:
        case "paper":
            chosen = [name for name in names if name in PAPERS]
            if not chosen:
                raise ValueError(f"select: this prior knows none of the paper's distortions, but {', '.join(names)}")
        case "all":
            chosen = names
        case _:
            chosen = [names[place] for place in relation.gamma.argsort(descending=True, stable=True)[:k].tolist()]
    return relation.only(chosen)
