"""The prior: everything learned before a job begins, as one versioned safetensors bundle."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ml import checkpoint
from ml.backbones import SameSize, build
from ml.distortions import DISTORTIONS
from ml.drn import DistortionRelationNetwork, DrnShape
from ml.relation import Prototypes
from ml.transferability import fresh_expert

SHIPPED = Path(__file__).with_name("default_prior.safetensors")


@dataclass(frozen=True)
class Prior:
    """A trained DRN with its memory bank, the auxiliary prototypes, and weights per backbone pre-trained on all tasks.

    `thetas` is keyed by `theta_name`; `card` says what it was trained on, how long, and under which licences. `experts`
    has a network for each distortion, trained on it alone; none in bundles older than these.
    """

    version: str
    drn: DistortionRelationNetwork
    prototypes: Prototypes
    thetas: dict[str, dict[str, Tensor]]
    card: dict[str, Any]
    experts: dict[str, SameSize] = field(default_factory=dict)

    def has_theta(self, backbone: str, unshuffle: int) -> bool:
        return theta_name(backbone, unshuffle) in self.thetas

    def start(self, network: SameSize, backbone: str) -> bool:
        """Give the network the pre-trained weights of its backbone. False where the prior has none for it."""
        theta = self.thetas.get(theta_name(backbone, network.unshuffle))
        if theta is None:
            return False
        network.load_state_dict(theta)
        return True


def theta_name(backbone: str, unshuffle: int) -> str:
    return f"{backbone}-u{unshuffle}"


def network_of(theta: str, weights: Mapping[str, Tensor]) -> SameSize:
    """The network that `theta_name` names, with these weights.

    Raises ValueError for one that this code does not know, RuntimeError where the weights are another's.
    """
    backbone, unshuffle = theta.rsplit("-u", 1)
    try:
        network = build(backbone, int(unshuffle), seed=0)  # type: ignore[arg-type]  # Any word, of a file.
    except (KeyError, AssertionError) as error:  # RCAN's windows are no multiple of every `unshuffle`.
        raise ValueError(f"it has weights of {theta}, which this code does not know") from error
    network.load_state_dict(weights)
    return network


def save_prior(path: Path, prior: Prior) -> None:
    """Write the bundle. The DRN is kept in half precision (round its weights before the prototypes are computed).

    So are the experts, of which nothing was computed yet, and the weights of backbones, which a job trains in float32.
    """
    tensors = {f"drn.{name}": halved(value) for name, value in prior.drn.state_dict().items()}
    tensors |= {
        "prototypes.vectors": prior.prototypes.vectors,
        "prototypes.samples": prior.prototypes.samples.half(),
        "prototypes.psnr_db": prior.prototypes.psnr_db,
    }
    for theta, state in prior.thetas.items():
        tensors |= {f"theta.{theta}.{name}": halved(value) for name, value in state.items()}
    for name, expert in prior.experts.items():
        tensors |= {f"expert.{name}.{key}": halved(value) for key, value in expert.state_dict().items()}
    facts = {
        "version": prior.version,
        "drn": asdict(prior.drn.shape),
        "names": prior.prototypes.names,
        "thetas": sorted(prior.thetas),
        "experts": sorted(prior.experts),
        "card": prior.card,
    }
    checkpoint.save(path, tensors, facts)


class UnusablePrior(RuntimeError):
    """The bundle is missing, damaged or of another version of this code: the operator's concern, not the user's."""


def load_prior(path: Path | None = None, tick: Callable[[], None] = lambda: None) -> Prior:
    """Read a bundle, by default the one that ships with the project. Raises UnusablePrior.

    Calls `tick` before each network in it.
    """
    path = path or SHIPPED
    try:
        return _read(path, tick)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UnusablePrior(
            f"{path} cannot be used as a prior; rebuild it with `drtl prior train` ({error})"
        ) from error


def _read(path: Path, tick: Callable[[], None]) -> Prior:
    tensors, facts = checkpoint.load(path)
    tick()
    # A misfit shows here, not in the middle of a job.
    version, card, names = facts["version"], facts["card"], named(facts["names"])
    if not isinstance(version, str) or not isinstance(card, dict):
        raise ValueError("it has no version or no card")  # noqa: TRY004 - a matter of what the file says
    if unknown := set(names) - set(DISTORTIONS):
        raise ValueError(f"it knows distortions that this code does not: {sorted(unknown)}")
    drn = DistortionRelationNetwork(DrnShape(**facts["drn"]))
    drn.load_state_dict(checkpoint.under(tensors, "drn."))
    prototypes = prototypes_in(tensors, names, drn.dim)
    thetas = {theta: checkpoint.under(tensors, f"theta.{theta}.") for theta in named(facts["thetas"])}
    for theta, state in thetas.items():
        tick()
        network_of(theta, state)
    experts, blank = {}, fresh_expert(seed=0).eval()
    for name in named(facts.get("experts", [])):
        tick()
        experts[name] = deepcopy(blank)  # A third of the time of drawing random weights once more.
        experts[name].load_state_dict(checkpoint.under(tensors, f"expert.{name}."))
    return Prior(version, drn.eval(), prototypes, thetas, card, experts)


def named(names: Any) -> list[str]:
    """What a bundle lists by name. Raises ValueError for anything but different names."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"it lists {names!r} where names are expected")
    return names


def prototypes_in(tensors: Mapping[str, Tensor], names: list[str], dim: int) -> Prototypes:
    """The auxiliary nodes of a bundle, of `dim` values each. Raises ValueError where their parts do not fit."""
    vectors, samples, psnr_db = (tensors[f"prototypes.{part}"].float() for part in ("vectors", "samples", "psnr_db"))
    k = len(names)
    if k == 0 or vectors.shape != (k, dim):
        raise ValueError(f"its prototypes are no nodes of {dim} values")
    if samples.ndim != 3 or samples.shape[1] == 0 or (len(samples), samples.shape[2]) != (k, dim):
        raise ValueError(f"its prototypes have no samples of {dim} values")
    if psnr_db.shape != (k,):
        raise ValueError("its prototypes have no strength each")
    if not all(part.isfinite().all() for part in (vectors, samples, psnr_db)):
        raise ValueError("its prototypes are not finite")
    return Prototypes(names, vectors, samples, psnr_db)


def halved(value: Tensor) -> Tensor:
    """Floating-point values in half precision; counters as they are."""
    return value.half() if value.is_floating_point() else value


@torch.no_grad()
def round_to_half(drn: DistortionRelationNetwork) -> None:
    """Round the DRN's weights to what the bundle will hold, so that prototypes fit the network that is loaded."""
    for value in drn.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
