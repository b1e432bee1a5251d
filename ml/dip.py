"""Deep image prior (Ulyanov et al., CVPR 2018, arXiv:1711.10925): a network fitted to one distorted image from noise.

Here to be compared with, as in the paper's Table 2. It knows no clean image: its only prior is that convolutions
reproduce structure sooner than noise, so what it gives depends on when it is stopped.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml.sampling import generator_for


@dataclass(frozen=True)
class DipSchedule:
    """The authors' setting for denoising, but for a network of a quarter of the width and the steps that go with it.

    `jitter` is the deviation of the noise that is added to the network's input anew at every step, and `smoothing` the
    weight of the past in the running mean over results.
    """

    steps: int = 1_200
    width: int = 32
    scales: int = 4
    skip: int = 4
    learning_rate: float = 1e-2
    jitter: float = 1 / 30
    smoothing: float = 0.99


def deep_image_prior(distorted: Float[Tensor, "3 h w"], schedule: DipSchedule, seed: int) -> Float[Tensor, "3 h w"]:
    """min_θ ‖f_θ(z) − x‖² for a fixed random z, stopped after a number of steps; the running mean of f_θ(z), in [0, 1].

    Deterministic for a seed on the CPU; leaves torch's own random state alone.
    """
    _, height, width = distorted.shape
    multiple = 2**schedule.scales
    padded = F.pad(distorted[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")  # (1, 3, h2, w2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Hourglass(schedule.width, schedule.scales, schedule.skip).to(distorted.device)
    z = torch.rand(1, schedule.width, *padded.shape[2:], generator=generator_for(seed, "dip", 0)) / 10
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    average = torch.zeros_like(padded)
    for step in range(1, schedule.steps + 1):
        jitter = schedule.jitter * torch.randn(z.shape, generator=generator_for(seed, "dip", step))
        restored = network((z + jitter).to(distorted.device))
        loss = F.mse_loss(restored, padded)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average = schedule.smoothing * average + (1 - schedule.smoothing) * restored.detach()
    average = average / (1 - schedule.smoothing**schedule.steps)  # It began at zero.
    return average[0, :, :height, :width].clamp(0, 1)


class Hourglass(nn.Module):
    """Down by strides and up by interpolation, with a few channels skipped over at each scale.

    Its batch normalisation is over the one image that it is fitted to, so training is all that it ever does.
    """

    def __init__(self, width: int, scales: int, skip: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(*_layer(width, width, stride=2), *_layer(width, width)) for _ in range(scales)
        )
        self.across = nn.ModuleList(nn.Sequential(*_layer(width, skip, size=1)) for _ in range(scales))
        self.up = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width + skip), *_layer(width + skip, width), *_layer(width, width, size=1))
            for _ in range(scales)
        )
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, z: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 h w"]:
        skipped = []
        features = z
        for down, across in zip(self.down, self.across, strict=True):
            skipped.append(across(features))
            features = down(features)  # (1, c, h/2, w/2)
        for up, beside in zip(self.up, reversed(skipped), strict=True):
            wide = F.interpolate(features, scale_factor=2, mode="bilinear")  # (1, c, 2 h, 2 w)
            features = up(torch.cat([wide, beside], dim=1))
        restored: Tensor = self.last(features).sigmoid()
        return restored


def _layer(channels: int, out: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, size, stride, size // 2, padding_mode="reflect")
    return [convolution, nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]
