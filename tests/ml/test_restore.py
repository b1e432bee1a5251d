"""A model at work on files."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ml import restore, tiling
from ml.backbones import SameSize, build
from ml.images import decode, from_uint8, to_uint8
from ml.model_file import pack
from ml.pairs import enlarge
from ml.restore import Restorer, load_restorer

Encoded = Callable[..., bytes]


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[..., Restorer]:
    """A restorer whose network returns its input."""

    def make(scale: int = 1) -> Restorer:
        unshuffle = max(2, scale)
        card = {"backbone": "vdsr", "unshuffle": unshuffle, "scale": scale}
        (tmp_path / "model").write_bytes(pack(build("vdsr", unshuffle, 0), card))
        return load_restorer(tmp_path / "model")

    return make


def size_of(file: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(file)).size


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_an_untrained_model_gives_back_the_image(untrained, encoded: Encoded, odd_image: Tensor, mode: str) -> None:
    file = encoded(to_uint8(odd_image), mode=mode)
    result = untrained().restore(file)
    before, after = Image.open(io.BytesIO(file)), Image.open(io.BytesIO(result.data))
    assert after.mode == mode
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert (result.width, result.height, result.media_type) == (31, 37, "image/png")
    assert (result.tiles, result.tile) == (1, tiling.TILE)
    assert result.seconds > 0
    assert result.precision in {"fp32", "bf16"}


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_model_of_larger_pairs_enlarges_as_its_training_pairs_were(
    untrained, encoded: Encoded, odd_image: Tensor, scale: int, mode: str
) -> None:
    pixels = to_uint8(odd_image)
    result = untrained(scale).restore(encoded(pixels, mode=mode))
    picture = decode(result.data)
    assert size_of(result.data) == (31 * scale, 37 * scale) == (result.width, result.height)
    assert np.abs((picture.pixels - from_uint8(enlarge(pixels, scale))).numpy()).max() < 1e-6
    assert (picture.alpha is not None) == (mode == "RGBA")


def test_a_network_meets_the_enlarged_image_as_in_training_in_8_bits(
    random_network: Callable[..., SameSize], encoded: Encoded, odd_image: Tensor
) -> None:
    network, met = random_network(2), []
    network.register_forward_pre_hook(lambda module, inputs: met.append(inputs[0]))
    pixels = to_uint8(odd_image)
    Restorer(network, "vdsr", 2).restore(encoded(pixels))
    assert len(met) == 1
    assert torch.equal(met[0][0], from_uint8(enlarge(pixels, 2)))


def test_jpeg_output_is_close(untrained, encoded: Encoded, photographs: dict[str, Tensor]) -> None:
    pixels = photographs["chelsea"][:, 40:111, 80:143]
    result = untrained().restore(encoded(pixels), "jpeg")
    assert result.media_type == "image/jpeg"
    assert Image.open(io.BytesIO(result.data)).format == "JPEG"
    assert float((decode(result.data).pixels - pixels / 255).abs().mean()) < 0.01


def test_one_pixel_is_an_image(untrained, encoded: Encoded, odd_image: Tensor) -> None:
    assert size_of(untrained(2).restore(encoded(to_uint8(odd_image)[:, :1, :1])).data) == (2, 2)


def test_tiles_are_counted_and_each_may_stop_the_work(
    untrained, encoded: Encoded, odd_image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "TILE", 16)
    monkeypatch.setattr(restore, "restore_tiled", partial(tiling.restore_tiled, side=16))
    seen: list[int] = []
    file = encoded(to_uint8(odd_image))
    assert untrained().restore(file, after_tile=lambda: seen.append(1)).tiles == len(seen) == 6

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        untrained().restore(file, after_tile=stop)


def test_what_is_no_image_is_refused(untrained) -> None:
    with pytest.raises(ValueError, match="not a readable image"):
        untrained().restore(b"no image")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a model of ours"):
        load_restorer(tmp_path / "model")
