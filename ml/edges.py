"""The edges of the relation graph: how alike two nodes are (§3.2 by cosine, §4.6 by L1 or L2)."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

Edges = Literal["cosine", "l1", "l2"]
EDGES: tuple[Edges, ...] = get_args(Edges)


def similarity(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], edges: Edges) -> Float[Tensor, "n m"]:
    """How alike every node of `x` is to every node of `y`: 1 for equal ones, by any of the three.

    Cosine lies in [−1, 1]. The paper turns a distance into a relation without saying how; here it is
    1 − ‖x − y‖ / (‖x‖ + ‖y‖), which lies in [0, 1] and is 0 for opposite nodes.
    """
    if edges == "cosine":
        return normalize(x, dim=1) @ normalize(y, dim=1).T
    p = {"l1": 1.0, "l2": 2.0}[edges]
    lengths = x.norm(p, dim=1)[:, None] + y.norm(p, dim=1)  # (n, m)
    alike: Tensor = 1 - torch.cdist(x, y, p=p) / lengths.clamp_min(1e-12)
    return alike
