"""Where and how exactly to compute."""

import torch

from ml.precision import autocast, device, has_fast_bf16


def test_the_device_is_an_accelerator_where_there_is_one() -> None:
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_convolutions_run_in_bfloat16_exactly_where_the_hardware_has_it() -> None:
    on = device()
    image, kernel = torch.ones(1, 3, 4, 4, device=on), torch.ones(3, 3, 1, 1, device=on)
    with autocast(on):
        assert torch.nn.functional.conv2d(image, kernel).dtype == (
            torch.bfloat16 if has_fast_bf16(on) else torch.float32
        )
    assert torch.nn.functional.conv2d(image, kernel).dtype == torch.float32
