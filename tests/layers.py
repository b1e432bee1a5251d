"""The layers of small networks, whose weights tests set and look at."""

from torch import nn


def convolution(network: nn.Module, place: int) -> nn.Conv2d:
    """The one at that place of the body, which is a plain sequence as VDSR's is."""
    body = network.get_submodule("body")
    assert isinstance(body, nn.Sequential)
    layer = body[place]
    assert isinstance(layer, nn.Conv2d)
    return layer
