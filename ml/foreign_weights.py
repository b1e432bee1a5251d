"""Weights of networks of other projects, from a file that somebody names: untrusted, so nothing but tensors is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


class UnusableWeights(RuntimeError):
    """The file is missing, damaged, dangerous, or of another network: the operator's concern, not the user's."""


def read_weights(path: Path, wrappers: Sequence[str] = ()) -> Mapping[str, Tensor]:
    """Tensors by name, from safetensors or a `.pth`, where they may lie under one of the names of `wrappers`.

    A `.pth` is unpickled with nothing but tensors allowed, so it cannot run code. Raises UnusableWeights.
    """
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Of a damaged pickle torch raises whatever its bytes lead to, struct.error for one.
        raise UnusableWeights(f"{path} cannot be read as weights ({error})") from error
    if isinstance(state, dict):
        state = next((state[name] for name in wrappers if isinstance(state.get(name), dict)), state)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UnusableWeights(f"{path} holds no weights by name")
    weights: dict[str, Tensor] = state
    return weights
