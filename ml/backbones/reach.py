"""How far a body of convolutions sees, computed from its layers."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Block(Protocol):
    """A module with paths of its own, which knows the longest of them."""

    @property
    def reach(self) -> int:
        """As `reach` below."""


def reach(module: nn.Module) -> int:
    """How many pixels away a pixel of the module's input can still change a pixel of its output.

    Convolutions in series add up, of parallel paths the longest counts. Raises TypeError for a layer of unknown reach,
    and for one that sees the whole image.
    """
    match module:
        case nn.Conv2d(stride=(1, 1)):
            return max(k // 2 * d for k, d in zip(module.kernel_size, module.dilation, strict=True))
        case nn.Sequential():
            return sum(reach(layer) for layer in module)
        case nn.ReLU() | nn.Identity():
            return 0
        case Block():
            return module.reach
        case _:
            raise TypeError(f"the reach of {type(module).__name__} is unknown or without bound")
