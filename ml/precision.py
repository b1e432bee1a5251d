"""Where and how exactly to compute: the fastest the device does well."""

from contextlib import AbstractContextManager

import torch


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(on: torch.device) -> bool:
    """Whether bfloat16 arithmetic is done in hardware; emulated, it is slower than float32."""
    if on.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public question for this; both functions are what its own tests ask.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def autocast(on: torch.device) -> AbstractContextManager[object]:
    """Convolutions in bfloat16 where the hardware has it, float32 elsewhere. Weights and losses stay float32."""
    return torch.autocast(on.type, dtype=torch.bfloat16, enabled=has_fast_bf16(on))
