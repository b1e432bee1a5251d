"""Whether samples of a distortion keep together in the space of the DRN, and whom they lie next to."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize


def distances(samples: Float[Tensor, "k n d"]) -> Float[Tensor, "m m"]:
    """1 − cosine between all samples of all distortions; m = k · n."""
    flat = normalize(samples.flatten(0, 1), dim=1)  # (k n, d)
    return (1 - flat @ flat.T).clamp_min(0)


def silhouettes(samples: Float[Tensor, "k n d"]) -> list[float]:
    """The mean silhouette of each distortion's samples, in [−1, 1]; above 0 they lie nearer to their own.

    s = (b − a) / max(a, b) with the mean distance a to the other samples of the same distortion and the least mean
    distance b to those of another. Needs at least two of each.
    Source: Rousseeuw, Silhouettes, J. Comput. Appl. Math. 1987, doi:10.1016/0377-0427(87)90125-7.
    """
    k, n, _ = samples.shape
    to_distortion = distances(samples).unflatten(1, (k, n)).sum(dim=2)  # (k n, k)
    own = torch.arange(k, device=samples.device).repeat_interleave(n)[:, None]  # (k n, 1)
    a = to_distortion.gather(1, own)[:, 0] / (n - 1)  # (k n,)
    b = (to_distortion / n).scatter(1, own, torch.inf).amin(dim=1)  # (k n,)
    s: Tensor = (b - a) / torch.maximum(a, b).clamp_min(1e-12)
    means: list[float] = s.unflatten(0, (k, n)).mean(dim=1).tolist()
    return means


def neighbours(samples: Float[Tensor, "k n d"], distortion: int, count: int) -> Float[Tensor, "k"]:
    """Of the `count` nearest others of each of a distortion's samples: the share that belongs to each distortion.

    Its own entry near 1 means a cluster of its own; otherwise the others say whom it is mixed with.
    """
    k, n, _ = samples.shape
    between = distances(samples)
    between.fill_diagonal_(torch.inf)
    rows = between[distortion * n : (distortion + 1) * n]  # (n, k n)
    nearest: Int64[Tensor, "n c"] = rows.argsort(dim=1)[:, :count] // n
    return torch.bincount(nearest.flatten(), minlength=k) / nearest.numel()
