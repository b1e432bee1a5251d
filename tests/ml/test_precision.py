"""Where and how exactly to compute."""

import pytest
import torch

from ml.precision import autocast, device, has_fast_bf16


def test_the_device_is_an_accelerator_where_there_is_one() -> None:
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def cudnn_allows_tf32() -> bool:
    return torch.backends.cudnn.allow_tf32


def test_float32_is_float32_on_an_accelerator_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default torch computes convolutions of float32 in TF32 where the hardware has it, with 10 bits of fraction."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device()
    assert cudnn_allows_tf32()  # A machine without one is nothing that this changes.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device().type == "cuda"
    assert not cudnn_allows_tf32()
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # Made when torch is loaded.
    assert convolutions.fp32_precision != "tf32"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_convolutions_run_in_bfloat16_exactly_where_the_hardware_has_it() -> None:
    on = device()
    image, kernel = torch.ones(1, 3, 4, 4, device=on), torch.ones(3, 3, 1, 1, device=on)
    with autocast(on):
        assert torch.nn.functional.conv2d(image, kernel).dtype == (
            torch.bfloat16 if has_fast_bf16(on) else torch.float32
        )
    assert torch.nn.functional.conv2d(image, kernel).dtype == torch.float32
