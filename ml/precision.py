"""Where and how exactly to compute: the fastest the device does well, and what to do where that is not enough."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ml.backbones import Part, SameSize

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Arithmetic = Literal["fp32", "bf16", "fp16"]
DTYPES: Final[dict[Arithmetic, torch.dtype]] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def device() -> torch.device:
    """Where to compute: on the accelerator where there is one. From then on its float32 is float32.

    Torch would let it compute convolutions in TF32, which has the digits of half precision: in what falls back to
    float32, in the relation network, in experts. The flag is torch's older one; it must not be mixed with
    `fp32_precision`.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def has_fast_bf16(on: torch.device) -> bool:
    """Whether bfloat16 arithmetic is done in hardware; emulated, it is slower than float32."""
    if on.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public question for this; both functions are what its own tests ask.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def fastest(on: torch.device) -> Arithmetic:
    """bfloat16 where the hardware has it; half precision on older accelerators; float32 on other CPUs."""
    if has_fast_bf16(on):
        return "bf16"
    return "fp16" if on.type == "cuda" else "fp32"


def trained_in(on: torch.device) -> Arithmetic:
    """What convolutions are computed in while a network is trained: bfloat16 where the hardware has it."""
    return "bf16" if has_fast_bf16(on) else "fp32"


def autocast(on: torch.device) -> AbstractContextManager[object]:
    """For training. Weights and losses stay float32."""
    return torch.autocast(on.type, dtype=torch.bfloat16, enabled=trained_in(on) == "bf16")


class NotFinite(ArithmeticError):
    """A network makes infinities of an image, or no numbers at all: its weights are lost."""


@dataclass(frozen=True)
class Computed:
    """A network's result in float32 on the CPU; `fell_back` where the arithmetic asked for could not hold it."""

    result: Float[Tensor, "b 3 _ _"]
    fell_back: bool


def compute(network: SameSize, batch: Float[Tensor, "b 3 h w"], part: Part, arithmetic: Arithmetic) -> Computed:
    """What the network makes of `part` of each image in the batch.

    Half precision has no numbers beyond 65,504, and images came out black where a feature exceeded them. So results
    are looked at, and computed again in float32 where they are not finite. Raises NotFinite where that does not help.
    """
    on = next(network.parameters()).device
    with torch.inference_mode():
        batch = batch.to(on, memory_format=torch.channels_last)
        with torch.autocast(on.type, dtype=DTYPES[arithmetic], enabled=arithmetic != "fp32"):
            result = network.restore_part(batch, part).float()
        finite = bool(result.isfinite().all())
        fell_back = arithmetic != "fp32" and not finite
        if fell_back:
            result = network.restore_part(batch, part)
            finite = bool(result.isfinite().all())
        if not finite:
            raise NotFinite("the network's result has values that are not finite")
        return Computed(result.cpu(), fell_back)


def is_out_of_memory(error: BaseException) -> bool:
    """On an accelerator torch has a type for it; on the CPU it raises a RuntimeError that only its words tell apart."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
