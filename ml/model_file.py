"""A trained model as one safetensors file: weights, and its card, which says how to build the network, as metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ml.backbones import BACKBONES, SameSize, build
from ml.match import reference_in

MOST_UNSHUFFLE: Final = 8  # The network grows with its square, and the file must not choose how much memory it takes.
MOST_SCALE: Final = 4


def pack(network: SameSize, card: Mapping[str, Any]) -> bytes:
    """The file's bytes, equal for equal weights and card. The card must name `backbone`, `unshuffle` and `scale`."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return save(weights, {"card": json.dumps(card)})  # Several entries would come in any order.


def unpack(path: Path) -> tuple[SameSize, dict[str, Any]]:
    """The network, ready for inference, and its card. Raises ValueError for a file that is not such a model."""
    try:
        with safe_open(path, framework="pt") as file:
            card = _judged(json.loads((file.metadata() or {})["card"]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:  # Its own words are those of a parser.
        raise ValueError(f"path: {path} is not a model of ours (no safetensors file, or a damaged one)") from error
    except KeyError as error:
        raise ValueError(f"path: {path} is not a model of ours (it has no card)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"path: {path} is not a model of ours ({error})") from error
    try:
        network = build(card["backbone"], card["unshuffle"], seed=0)
        network.load_state_dict(weights)
    except (AssertionError, RuntimeError) as error:  # RCAN's windows, for one, are no multiple of every `unshuffle`.
        raise ValueError(f"path: {path} is not a model of ours ({error})") from error
    return network.eval(), card


def _judged(card: Any) -> dict[str, Any]:
    """The card, of which a network can be built, and with which images can be compared. Raises ValueError."""
    if not isinstance(card, dict):
        raise ValueError("its card is no object")  # noqa: TRY004 - a matter of what the file says
    if (backbone := card.get("backbone")) not in tuple(BACKBONES):  # A tuple, since what is asked for may be a list.
        raise ValueError(f"its card names the unknown backbone {backbone!r}")
    for name, most in (("unshuffle", MOST_UNSHUFFLE), ("scale", MOST_SCALE)):
        number = card.get(name)
        if type(number) is not int or not 1 <= number <= most:  # JSON's true would be an int, too.
            raise ValueError(f"its card has the {name} {number!r}; it must be a whole number from 1 to {most}")
    reference_in(card)  # Raises what would otherwise show after all the work.
    return card
