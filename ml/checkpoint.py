"""Training state as safetensors files: weights, optimizer and progress, written atomically and restored exactly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass
class Trainee:
    """A network in training: what a step changes and a checkpoint keeps."""

    network: nn.Module
    optimizer: torch.optim.Adam
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer state under flat names."""
        named = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for entry, value in self.optimizer.state.get(parameter, {}).items():
                named[f"optimizer.{name}/{entry}"] = value
        return named

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take over the state that `tensors` returned after `step` steps."""
        self.network.load_state_dict(under(tensors, "network."))
        for name, parameter in self.network.named_parameters():
            entries = under(tensors, f"optimizer.{name}/")
            if entries:
                state = self.optimizer.state[parameter]
                for entry, value in entries.items():
                    # Fused Adam keeps its step counter where the parameter is; moments also share its memory layout.
                    own = torch.empty_like(parameter if value.ndim else value, device=parameter.device)
                    state[entry] = own.copy_(value)
        self.step = step


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors with JSON facts beside them; the file appears whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(contiguous, partial, {"facts": json.dumps(facts)})
    partial.replace(path)


def load(path: Path, plan: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote. Raises ValueError for a file that is not whole or not ours, or whose facts name another plan.

    A plan is whatever a training depends on: with another one it would go on to what no uninterrupted training gives.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"path: {path} is not a whole checkpoint ({error})") from error
    if plan is not None and facts.get("plan") != plan:
        raise ValueError(f"path: {path} is a checkpoint of another plan")
    return tensors, facts


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
