"""What the bodies compute, against the published networks written out layer by layer."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml.backbones import SameSize, dncnn, rcan, rdn, vdsr

Seeded = Callable[[int], torch.Generator]
Weights = dict[str, Tensor]


def conv(weights: Weights, name: str, features: Tensor) -> Tensor:
    """With a border of zeros, so that the size stays."""
    kernel = weights[f"{name}.weight"]
    return F.conv2d(features, kernel, weights[f"{name}.bias"], padding=kernel.shape[-1] // 2)


def relu(features: Tensor) -> Tensor:
    return features.clamp(min=0)


def vdsr_of_six(weights: Weights, image: Tensor) -> Tensor:
    """Of six convolutions, the inner ones in two residual blocks."""
    features = conv(weights, "0", image)
    for block in (1, 2):
        features = features + conv(weights, f"{block}.second", relu(conv(weights, f"{block}.first", features)))
    return conv(weights, "3", features)


def dncnn_of_seventeen(weights: Weights, image: Tensor) -> Tensor:
    features = image
    for layer in range(16):
        features = relu(conv(weights, f"{2 * layer}", features))
    return conv(weights, "32", features)


def rcan_of_two_groups(weights: Weights, image: Tensor) -> Tensor:
    """Of two blocks each."""
    shallow = features = conv(weights, "head", image)
    for group in (0, 1):
        inner = features
        for block in (0, 1):
            name = f"groups.{group}.body.{block}"
            change = conv(weights, f"{name}.second", relu(conv(weights, f"{name}.first", inner)))
            mean = change.mean(dim=(2, 3), keepdim=True)
            squeezed = relu(conv(weights, f"{name}.attention.squeeze", mean))
            inner = inner + change * torch.sigmoid(conv(weights, f"{name}.attention.excite", squeezed))
        features = features + conv(weights, f"groups.{group}.body.2", inner)
    return conv(weights, "tail", shallow + conv(weights, "groups.2", features))


def rdn_of_two_blocks(weights: Weights, image: Tensor) -> Tensor:
    """Of three layers each."""
    shallow = conv(weights, "head", image)
    features, results = conv(weights, "second", shallow), []
    for block in (0, 1):
        known = [features]
        for layer in (0, 1, 2):
            known.append(relu(conv(weights, f"blocks.{block}.layers.{layer}", torch.cat(known, dim=1))))
        features = features + conv(weights, f"blocks.{block}.fusion", torch.cat(known, dim=1))
        results.append(features)
    return conv(weights, "tail", shallow + conv(weights, "last", conv(weights, "fusion", torch.cat(results, dim=1))))


@pytest.mark.parametrize(
    ("made", "written_out"),
    [
        (partial(vdsr, 1, depth=6, width=8), vdsr_of_six),
        (partial(dncnn, 1, width=8), dncnn_of_seventeen),
        (partial(rcan, 1, groups=2, blocks=2, width=8, reduction=2), rcan_of_two_groups),
        (partial(rdn, 1, blocks=2, layers=3, growth=4, width=8), rdn_of_two_blocks),
    ],
    ids=["vdsr", "dncnn", "rcan", "rdn"],
)
def test_a_body_computes_what_is_published(
    made: Callable[[], SameSize], written_out: Callable[[Weights, Tensor], Tensor], seeded: Seeded
) -> None:
    """With random weights that keep the power of features, so that no part of it is too faint to be missed."""
    image, drawn = torch.randn(2, 3, 11, 7, generator=seeded(0)), seeded(1)
    body = made().body
    with torch.no_grad():
        for weight in body.parameters():
            fan_in = weight[0].numel() if weight.ndim == 4 else 4
            nn.init.normal_(weight, std=(2 / fan_in) ** 0.5, generator=drawn)
        expected = written_out(body.state_dict(), image)
        assert torch.allclose(body(image), expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_dncnn_has_a_relu_after_every_convolution_but_the_last() -> None:
    body = dncnn(1, width=8).body
    assert isinstance(body, nn.Sequential)
    assert [type(layer) for layer in body] == [nn.Conv2d, nn.ReLU] * 16 + [nn.Conv2d]
