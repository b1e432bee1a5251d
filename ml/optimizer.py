"""The paper's optimizer, Adam, with a limit on gradients that are far larger than what it remembers of earlier ones."""

from math import inf
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

LIMIT: Final = 4.0
SETTLED: Final = 10  # Steps. After fewer, Adam remembers little but the first gradients of an untrained network.


def adam(network: nn.Module, learning_rate: float, limit: float = LIMIT) -> torch.optim.Adam:
    """Adam, one fused kernel a step, that scales gradients of more than `limit` by `relative_norm` down to that.

    At a high rate one gradient of many times the usual size can set off larger ones, until the network is lost
    (`benchmarks/gradient_limit.py`). Clipping averts that: Pascanu et al., ICML 2013, arXiv:1211.5063. The norms of
    networks in training differ widely, so no number suits them all; Adam knows what is usual (compare Shazeer and
    Stern, ICML 2018, arXiv:1804.04235, section 6). Gradients within the limit stay as they are, bit for bit. One that
    is not finite changes nothing: that step is left out.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)

    def limit_gradient(*_: Any) -> None:
        norm, usual = _norm(optimizer), _usual_norm(optimizer)
        # What gradient scalers tell the fused kernel by: it then leaves everything as it was, its count of steps too.
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # Scalers set it, too.
        excess = norm / (limit * usual)
        clip_grads_with_norm_(network.parameters(), 1.0, torch.where(excess > 1, excess, 0.0))

    optimizer.register_step_pre_hook(limit_gradient)
    return optimizer


def relative_norm(optimizer: torch.optim.Adam) -> Float[Tensor, ""]:
    """‖g‖ / √Σv̂: the gradient's norm in units of the norms before, as a root mean square over some thousand steps.

    v̂ is Adam's second moment before this step. 0 where Adam knows too little: in its first steps, and while all
    gradients were zero. No accelerator is waited for.
    """
    return _norm(optimizer) / _usual_norm(optimizer)


@torch.no_grad()
def _norm(optimizer: torch.optim.Adam) -> Float[Tensor, ""]:
    return get_total_norm([parameter.grad for parameter in _learned(optimizer) if parameter.grad is not None])


@torch.no_grad()
def _usual_norm(optimizer: torch.optim.Adam) -> Float[Tensor, ""]:
    """√Σv̂; infinite where Adam knows too little."""
    learned = _learned(optimizer)
    remembered = [optimizer.state[parameter] for parameter in learned if "exp_avg_sq" in optimizer.state[parameter]]
    if not remembered:
        return torch.full((), inf, device=learned[0].device if learned else None)
    step = remembered[0]["step"]
    _, kept = optimizer.param_groups[0]["betas"]
    moment = get_total_norm([state["exp_avg_sq"] for state in remembered], norm_type=1.0)  # Σv, none of it negative
    return torch.where((step >= SETTLED) & (moment > 0), (moment / (1 - kept**step)).sqrt(), inf)


def _learned(optimizer: torch.optim.Adam) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
