"""DnCNN (Zhang et al., "Beyond a Gaussian denoiser", IEEE TIP 2017)."""

import torch
from torch import nn

from ml.backbones.layers import convolution, zero_convolution
from ml.backbones.same_size import SameSize


def dncnn(unshuffle: int, *, depth: int = 17, width: int = 64) -> SameSize:
    """A plain stack of 17 convolutions of 3×3 with 64 channels and one skip over all (arXiv:1608.03981).

    The published network has a batch normalisation after each inner convolution; this is the form that its authors
    deploy, with the normalisations merged into the convolutions' weights and biases. In few-shot training the
    statistics of a batch are those of crops of one or two scenes: what is trained on them is not what runs on the
    statistics kept for inference, and inner loops of meta-learning have no right ones to keep at all.

    Without them, and with its last layer at zero, a plain stack is slow to leave the identity: from layer to layer the
    features of all pixels become alike, and the last layer finds little in them. So the inner convolutions start as
    the identity and a tenth of the usual noise (Zagoruyko and Komodakis, "DiracNets", arXiv:1706.00388).
    """
    channels = 3 * unshuffle**2
    layers: list[nn.Module] = [convolution(channels, width), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [_nearly_identity(width), nn.ReLU()]
    return SameSize(nn.Sequential(*layers, zero_convolution(width, channels)), unshuffle)


def _nearly_identity(width: int) -> nn.Conv2d:
    layer = convolution(width, width)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.weight[range(width), range(width), 1, 1] += 1
    return layer
