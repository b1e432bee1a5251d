"""Real-ESRGAN with its published weights (Wang et al., ICCVW 2021, arXiv:2107.10833), to be compared with in Table 2.

The weights are not ours to ship: who wants the column names the file. Its network enlarges, and a target's images are
of one size, so the distorted image goes in as it is and the enlarged result is brought back to its size by bicubic
interpolation with antialiasing. It sees no pair of the target.
"""

from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.foreign_weights import UnusableWeights, read_weights
from ml.precision import device

GROWTH: Final = 32
RESIDUAL_SCALE: Final = 0.2
TILE, OVERLAP = 256, 32  # Of the input; larger images would take more memory than a CPU's machine has.
WRAPPERS: Final = ("params_ema", "params")  # Under which name the published files keep the weights.


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, GROWTH, 3, padding=1)
        self.conv2 = nn.Conv2d(width + GROWTH, GROWTH, 3, padding=1)
        self.conv3 = nn.Conv2d(width + 2 * GROWTH, GROWTH, 3, padding=1)
        self.conv4 = nn.Conv2d(width + 3 * GROWTH, GROWTH, 3, padding=1)
        self.conv5 = nn.Conv2d(width + 4 * GROWTH, width, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        known = features
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            known = torch.cat([known, _rectified(layer(known))], dim=1)  # (b, c + i·growth, h, w)
        change: Tensor = self.conv5(known)
        return features + RESIDUAL_SCALE * change


class ResidualBlock(nn.Module):
    """Three dense blocks, and a skip over them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(width), DenseBlock(width), DenseBlock(width)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        change: Tensor = self.rdb3(self.rdb2(self.rdb1(features)))
        return features + RESIDUAL_SCALE * change


class RRDBNet(nn.Module):
    """Residual-in-residual dense blocks, then twice a doubling by nearest neighbours and a convolution.

    For an enlargement of 2 the image is pixel-unshuffled first. Modules are named as in the published files.
    """

    def __init__(self, scale: int, *, blocks: int = 23, width: int = 64) -> None:
        super().__init__()
        self.scale = scale
        self.conv_first = nn.Conv2d(3 * (4 // scale) ** 2, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        height, width = image.shape[2:]
        r = 4 // self.scale
        padded = F.pad(image, (0, -width % r, 0, -height % r), mode="replicate")
        shallow = self.conv_first(F.pixel_unshuffle(padded, r))  # (b, c, h / r, w / r)
        features = shallow + self.conv_body(self.body(shallow))
        for layer in (self.conv_up1, self.conv_up2):
            features = _rectified(layer(F.interpolate(features, scale_factor=2, mode="nearest")))
        enlarged: Tensor = self.conv_last(_rectified(self.conv_hr(features)))
        return enlarged[..., : height * self.scale, : width * self.scale]


def load_real_esrgan(path: Path) -> RRDBNet:
    """Read RealESRGAN_x4plus or _x2plus, `.pth` or safetensors; its shapes say which. Raises UnusableWeights."""
    state = read_weights(path, WRAPPERS)
    first = state.get("conv_first.weight")
    blocks = {name.split(".")[1] for name in state if name.startswith("body.")}
    if first is None or first.ndim != 4 or first.shape[1] not in {3, 12} or not blocks:
        raise UnusableWeights(f"{path} holds no weights of RRDBNet; wanted are those of RealESRGAN_x4plus or _x2plus")
    with torch.device("meta"):  # The file decides how large it is, so nothing is allocated before its shapes fit.
        network = RRDBNet(4 if first.shape[1] == 3 else 2, blocks=min(len(blocks), 64), width=first.shape[0])
    try:
        network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        raise UnusableWeights(f"{path} does not fit RRDBNet ({error})") from error
    return network.eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def restore(network: RRDBNet, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Enlarge in tiles, bring back to the size of the image, clip to [0, 1]."""
    _, height, width = image.shape
    on = device()
    network = network.to(on)
    scale = network.scale
    enlarged = torch.empty(3, height * scale, width * scale)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(height, top + TILE), min(width, left + TILE)
            above, before = max(0, top - OVERLAP), max(0, left - OVERLAP)
            seen = image[None, :, above : bottom + OVERLAP, before : right + OVERLAP]  # (1, 3, h', w')
            tile = network(seen.to(on))[0].cpu()
            y, x = (top - above) * scale, (left - before) * scale
            part = tile[:, y : y + (bottom - top) * scale, x : x + (right - left) * scale]
            enlarged[:, top * scale : bottom * scale, left * scale : right * scale] = part
    same = F.interpolate(enlarged[None], (height, width), mode="bicubic", antialias=True)[0]
    return same.clamp(0, 1)


def _rectified(features: Tensor) -> Tensor:
    return F.leaky_relu(features, 0.2)
