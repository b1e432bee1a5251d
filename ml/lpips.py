"""LPIPS, a distance between images by the features of an image classifier, where the classifier's weights are there.

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, version 0.1.
The small linear weights come with torchmetrics. The classifier's own are 233 MiB (AlexNet) or 528 MiB (VGG-16) under
terms of their own, so an operator names the file: the state of torchvision's `alexnet` or `vgg16`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
import torchmetrics
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ml.foreign_weights import UnusableWeights, read_weights
from ml.metrics import rounded

Classifier = Literal["alex", "vgg"]
LINEAR_WEIGHTS: Final = Path(torchmetrics.__path__[0], "functional", "image", "lpips_models")
# Mean and spread of ImageNet's colours on the scale −1…1, as LPIPS was trained with.
SHIFT: Final = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE: Final = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
SHORTEST_SIDE: Final = 32  # Less does not reach AlexNet's or VGG's last layer.


@dataclass(frozen=True)
class Lpips:
    """The perceptual distance of one classifier; `taps` are the layers behind which features are compared."""

    classifier: Classifier
    features: nn.Sequential
    taps: tuple[int, ...]
    linear: tuple[Float[Tensor, "1 _ 1 1"], ...]

    @torch.no_grad()
    def distance(self, image: Float[Tensor, "3 h w"], clean: Float[Tensor, "3 h w"]) -> float | None:
        """0 for equal images, the larger the less alike; None for images with a side below 32 pixels."""
        if min(image.shape[1:]) < SHORTEST_SIDE:
            return None
        both = torch.stack([rounded(image), rounded(clean)])  # (2, 3, h, w)
        activation = (2 * both - 1 - SHIFT) / SCALE
        total, tapped = 0.0, 0
        for place, layer in enumerate(self.features):
            activation = layer(activation)  # (2, c, h', w')
            if place in self.taps:
                unit = activation / (activation.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
                difference = (unit[:1] - unit[1:]).square()  # (1, c, h', w')
                total += float(conv2d(difference, self.linear[tapped]).mean())
                tapped += 1
        return total


def load_lpips(path: Path) -> Lpips:
    """Read a classifier's weights, safetensors or `.pth`, whose layers say whose they are. Raises UnusableWeights."""
    state = read_weights(path)
    classifier: Classifier
    if _shape(state, "features.0.weight") == (64, 3, 11, 11):
        classifier, features, taps = "alex", alexnet_features(), (1, 4, 7, 9, 11)
    elif _shape(state, "features.0.weight") == (64, 3, 3, 3) and _shape(state, "features.28.weight"):
        classifier, features, taps = "vgg", vgg16_features(), (3, 8, 15, 22, 29)
    else:
        raise UnusableWeights(f"{path} holds the weights of neither torchvision's alexnet nor its vgg16")
    own = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    try:
        features.load_state_dict({name: value.float() for name, value in own.items()})
    except RuntimeError as error:
        raise UnusableWeights(f"{path} is not whole ({error})") from error
    lin = torch.load(LINEAR_WEIGHTS / f"{classifier}.pth", map_location="cpu", weights_only=True)
    linear = tuple(lin[f"lin{place}.model.1.weight"] for place in range(len(taps)))
    return Lpips(classifier, features.eval().requires_grad_(requires_grad=False), taps, linear)


def alexnet_features() -> nn.Sequential:
    """The convolutions of torchvision's AlexNet up to the last that LPIPS looks at (Krizhevsky 2014)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def vgg16_features() -> nn.Sequential:
    """The convolutions of VGG-16 (Simonyan & Zisserman 2015, table 1, column D) up to the last that LPIPS looks at."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512):
        if isinstance(entry, int):
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    return tuple(state[name].shape) if name in state else ()
