"""A trained model as one safetensors file: weights, and its card, which says how to build the network, as metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ml.backbones import BACKBONES, SameSize, build


def pack(network: SameSize, card: Mapping[str, Any]) -> bytes:
    """The file's bytes, equal for equal weights and card. The card must name `backbone`, `unshuffle` and `scale`."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return save(weights, {"card": json.dumps(card)})  # Several entries would come in any order.


def unpack(path: Path) -> tuple[SameSize, dict[str, Any]]:
    """The network, ready for inference, and its card. Raises ValueError for a file that is not such a model."""
    try:
        with safe_open(path, framework="pt") as file:
            card: dict[str, Any] = json.loads((file.metadata() or {})["card"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"path: {path} is not a model of ours ({error})") from error
    if card.get("backbone") not in BACKBONES:
        raise ValueError(f"path: {path} needs the unknown backbone {card.get('backbone')!r}")
    network = build(card["backbone"], card["unshuffle"], seed=0)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"path: {path} is not a model of ours ({error})") from error
    return network.eval(), card
