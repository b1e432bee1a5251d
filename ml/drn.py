"""Distortion-relation network: where a distortion lies among the known ones (paper §3.2)."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.edges import EDGES, Edges

AffinityForm = Literal["scaled", "literal"]
AFFINITIES: Final[tuple[AffinityForm, ...]] = get_args(AffinityForm)
# Simonyan & Zisserman 2015, table 1, column A: output channels of 3×3 convolutions.
VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
STRENGTH_CENTRES_DB = tuple(float(db) for db in range(10, 55, 5))  # PSNR that a distortion leaves, strong to weak
STRENGTH_WIDTH_DB = 8.0
ROUNDING = 1 / 255  # Residuals below one grey level are rounding, and must not be blown up into a pattern.


@dataclass(frozen=True)
class DrnShape:
    """Sizes and variants of a DRN. The widths are ours; the paper names only VGG-11 and a bank of Q nodes."""

    width: float = 0.5  # of VGG-11's channel counts
    kind_dim: int = 128
    memory_nodes: int = 32  # 0 is the paper's "w/o Memory Bank" (Table 3): a sample is then a graph of one node
    affinity: AffinityForm = "scaled"
    edges: Edges = "cosine"

    def __post_init__(self) -> None:
        """Raise ValueError for variants that there are not."""
        if self.affinity not in AFFINITIES or self.edges not in EDGES:
            raise ValueError(f"there is no affinity {self.affinity!r} with edges {self.edges!r}")


class Affinity(nn.Module):
    """How strongly two nodes are tied, in (0, 1).

    Eq. (6) and (8) as printed, σ(‖x − y‖²), tie *distant* nodes and saturate at one; `literal` keeps that form. The
    default is σ(b − a·‖x − y‖²/d) with learned a > 0 and b, which falls with distance.
    """

    def __init__(self, form: AffinityForm) -> None:
        super().__init__()
        self.form = form
        self.log_a = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.ones(()))

    def forward(self, x: Float[Tensor, "*#b n d"], y: Float[Tensor, "*#b m d"]) -> Float[Tensor, "*#b n m"]:
        squared = (x[..., :, None, :] - y[..., None, :, :]).square().sum(dim=-1)  # (*b, n, m)
        if self.form == "literal":
            return torch.sigmoid(squared)
        return torch.sigmoid(self.b - self.log_a.exp() * squared / x.shape[-1])


class DistortionRelationNetwork(nn.Module):
    """Embeds what a distortion did to an image, not what the image shows.

    A node is the outer product of two unit vectors: the *kind* of the distortion, from the graph network over VGG
    features of the residual brought to equal size, and its *strength* in a soft code of decibels. The cosine of two
    nodes is then cosine of kinds × cosine of strengths: what is alike in kind but far in strength is little related.
    The paper has the kind alone, which called sensor noise of 36 dB a close relative of mixtures of 20 dB.

    Shapes: b pairs, d kind size, s strength centres, q memory nodes; a node has d·s values and length 1.
    """

    def __init__(self, shape: DrnShape) -> None:
        super().__init__()
        self.shape = shape
        self.dim = shape.kind_dim * len(STRENGTH_CENTRES_DB)
        layers: list[nn.Module] = []
        channels = 3
        for entry in VGG11:
            if isinstance(entry, int):
                out = int(entry * shape.width)
                convolution = nn.Conv2d(channels, out, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                channels = out
            else:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # So that patches of any size have a node.
        self.vgg = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, shape.kind_dim))
        self.memory = nn.Parameter(torch.randn(shape.memory_nodes, shape.kind_dim))
        self.affinity = Affinity(shape.affinity)
        self.gcn = nn.ModuleList([nn.Linear(shape.kind_dim, shape.kind_dim) for _ in range(2)])

    def forward(
        self, clean: Float[Tensor, "b 3 h w"], distorted: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b {self.dim}"]:
        residual = (clean - distorted) / 2 + 0.5  # (b, 3, h, w) in [0, 1]
        kind = F.normalize(self.kind(residual), dim=1)  # (b, d)
        strength = strength_code(residual_psnr(residual))  # (b, s)
        return (kind[:, :, None] * strength[:, None, :]).flatten(1)  # (b, d s)

    def kind(self, residual: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b {self.shape.kind_dim}"]:
        """The node before it is given a length and a strength."""
        deviation = residual - 0.5
        rms = deviation.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()  # (b, 1, 1, 1)
        f = self.vgg(deviation / rms.clamp_min(ROUNDING / 2))  # (b, d)  F_dist
        a_p = self.affinity(f[:, None], self.memory)  # (b, 1, q)  Eq. (6)
        a_m = self.affinity(self.memory, self.memory)  # (q, q)  Eq. (8)
        nodes = torch.cat([f[:, None], self.memory.expand(len(f), -1, -1)], dim=1)  # (b, 1 + q, d)
        adjacency = normalised(joined(a_p, a_m))  # (b, 1 + q, 1 + q)  Eq. (7)
        nodes = F.relu(self.gcn[0](adjacency @ nodes)) + nodes
        c: Tensor = self.gcn[1](adjacency @ nodes)[:, 0]  # (b, d)  Eq. (9)
        return c


def kind_in(node: Float[Tensor, "*b ds"]) -> Float[Tensor, "*b d"]:
    """The kind that a node was made of, unit length; strength codes are never negative, so their sum is not zero."""
    return F.normalize(node.unflatten(-1, (-1, len(STRENGTH_CENTRES_DB))).sum(dim=-1), dim=-1)


def joined(a_p: Float[Tensor, "b 1 q"], a_m: Float[Tensor, "q q"]) -> Float[Tensor, "b n n"]:
    """The adjacency [A_p, A_M] of Eq. (7) as one square matrix: the sample first, then the memory; n = 1 + q."""
    b, _, q = a_p.shape
    adjacency = torch.ones(b, 1 + q, 1 + q, dtype=a_p.dtype, device=a_p.device)
    adjacency[:, :1, 1:] = a_p
    adjacency[:, 1:, :1] = a_p.transpose(1, 2)
    adjacency[:, 1:, 1:] = a_m
    return adjacency


def normalised(adjacency: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
    """D^(−1/2) A D^(−1/2) of the graph convolution (Kipf & Welling 2017)."""
    degree = adjacency.sum(dim=2).rsqrt()  # (b, n)
    return degree[:, :, None] * adjacency * degree[:, None, :]


def residual_psnr(residual: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """The strength of a distortion as the PSNR in dB that it leaves, from the scaled residual of §3.2."""
    mse = (2 * (residual - 0.5)).square().mean(dim=(1, 2, 3))  # (b,)
    return -10 * mse.clamp_min(1e-9).log10()


def strength_code(psnr_db: Float[Tensor, "b"]) -> Float[Tensor, "b s"]:
    """Strength as a unit vector of Gaussian responses around fixed decibels, 10 to 50 dB.

    The cosine of two codes is never negative and falls with their distance Δ about as exp(−Δ²/(4·8²)): 0.9 at 5 dB,
    0.7 at 10, 0.2 at 20. A mean of codes describes a distortion whose strength varies.
    """
    centres = torch.tensor(STRENGTH_CENTRES_DB, device=psnr_db.device)
    within = psnr_db.clamp(STRENGTH_CENTRES_DB[0], STRENGTH_CENTRES_DB[-1])
    responses = torch.exp(-((within[:, None] - centres) ** 2) / (2 * STRENGTH_WIDTH_DB**2))  # (b, s)
    return F.normalize(responses, dim=1)
