"""A model at work on files."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ml import precision, restore
from ml.backbones import Part, SameSize, build
from ml.image_reader import ImageReader, open_image
from ml.images import to_uint8
from ml.match import fingerprint
from ml.model_file import pack
from ml.precision import Arithmetic, Computed
from ml.restore import Restored, RestoreOptions, Restorer, describe_file, load_restorer
from ml.tiling import Grid
from tests.layers import convolution

Encoded = Callable[..., bytes]
Make = Callable[..., Restorer]
Through = Callable[..., tuple[Image.Image, Restored]]


@pytest.fixture
def untrained(tmp_path: Path) -> Make:
    """A restorer whose network returns its input."""

    def make(scale: int = 1) -> Restorer:
        unshuffle = max(2, scale)
        card = {"backbone": "vdsr", "unshuffle": unshuffle, "scale": scale}
        (tmp_path / "model").write_bytes(pack(build("vdsr", unshuffle, 0), card))
        return load_restorer(tmp_path / "model")

    return make


@pytest.fixture
def overflowing(random_network: Callable[..., SameSize]) -> Restorer:
    """A restorer whose features half precision cannot hold, wherever an image is not black."""
    network = random_network(2).eval()
    with torch.no_grad():  # Beyond 65,504, and back.
        convolution(network, 0).weight.mul_(1e5)
        convolution(network, -1).weight.div_(1e5)
    return Restorer(network, {"scale": 1})


@pytest.fixture
def through(tmp_path: Path) -> Through:
    """Send a file through a restorer."""

    def restore_bytes(restorer: Restorer, file: bytes, **options: Any) -> tuple[Image.Image, Restored]:
        (tmp_path / "in").write_bytes(file)
        restored = restorer.restore_file(tmp_path / "in", tmp_path / "out", RestoreOptions(**options))
        return Image.open(io.BytesIO((tmp_path / "out").read_bytes())), restored

    return restore_bytes


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_an_untrained_model_gives_back_the_image(
    untrained: Make, through: Through, encoded: Encoded, odd_image: Tensor, mode: str
) -> None:
    file = encoded(to_uint8(odd_image), mode=mode)
    after, result = through(untrained(), file)
    before = Image.open(io.BytesIO(file))
    assert after.mode == mode
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert (result.width, result.height, result.depth, result.media_type) == (31, 37, 8, "image/png")
    assert (result.tiles, result.fallback_tiles, result.match) == (1, 0, None)
    assert set(result.seconds) == {"decode", "restore", "encode"}
    assert min(result.seconds.values()) > 0
    assert result.precision == precision.fastest(torch.device("cpu"))


@pytest.mark.parametrize("outscale", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("scale", [1, 2])
def test_the_final_size_is_relative_to_the_input(
    untrained: Make, through: Through, encoded: Encoded, odd_image: Tensor, scale: int, outscale: float
) -> None:
    image, result = through(untrained(scale), encoded(to_uint8(odd_image)), outscale=outscale)
    assert image.size == (result.width, result.height) == (round(31 * outscale), round(37 * outscale))


def test_a_model_of_larger_pairs_enlarges(
    untrained: Make, through: Through, encoded: Encoded, odd_image: Tensor
) -> None:
    image, _ = through(untrained(4), encoded(to_uint8(odd_image)[:, :1, :1]))
    assert image.size == (4, 4)


@pytest.mark.parametrize("output", ["png", "jpeg", "webp", "tiff"])
def test_the_output_has_the_format_asked_for(
    untrained: Make, through: Through, encoded: Encoded, photographs: dict[str, Tensor], output: str
) -> None:
    pixels = photographs["chelsea"][:, 40:111, 80:143]
    image, result = through(untrained(), encoded(pixels), output=output)
    assert result.media_type == f"image/{output}"
    assert str(image.format).lower() == output
    assert np.abs(np.asarray(image).transpose(2, 0, 1) - pixels.numpy().astype(int)).mean() < 2.5


def test_the_share_that_is_done_is_told_and_whoever_hears_it_may_stop_the_work(
    untrained: Make, encoded: Encoded, odd_image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "grid_for", lambda radius, align: Grid(16, radius, align))
    (tmp_path / "in").write_bytes(encoded(to_uint8(odd_image)))
    shares: list[float] = []
    result = untrained().restore_file(tmp_path / "in", tmp_path / "out", after_tiles=shares.append)
    assert result.tiles == 6
    assert shares[:6] == sorted(shares[:6])
    assert shares[5] == 1

    def stop(done: float) -> None:
        if done > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        untrained().restore_file(tmp_path / "in", tmp_path / "out", after_tiles=stop)


def test_a_tile_that_half_precision_cannot_hold_is_computed_again_and_that_is_said(
    overflowing: Restorer, encoded: Encoded, odd_image: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(encoded(to_uint8(odd_image)))
    results = {}
    for asked in ("fp32", "fp16"):
        results[asked] = overflowing.restore_file(tmp_path / "in", tmp_path / asked, RestoreOptions(precision=asked))
    assert results["fp32"].fallback_tiles == 0
    assert (results["fp16"].precision, results["fp16"].fallback_tiles) == ("fp16", 1)
    assert (tmp_path / "fp16").read_bytes() == (tmp_path / "fp32").read_bytes()


@pytest.mark.parametrize("options", [{}, {"ensemble": 8}, {"explain": True}, {"ensemble": 8, "explain": True}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_tile_that_is_computed_again_counts_once_however_often_the_network_runs_for_it(
    overflowing: Restorer, through: Through, encoded: Encoded, odd_image: Tensor, mode: str, options: dict[str, object]
) -> None:
    file = encoded(to_uint8(odd_image), mode=mode)
    if mode == "RGBA":  # With an alpha that goes through the network, too.
        image = Image.open(io.BytesIO(file))
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(buffer := io.BytesIO(), "PNG")
        file = buffer.getvalue()
    _, result = through(overflowing, file, precision="fp16", **options)
    assert (result.tiles, result.fallback_tiles) == (1, 1)


def test_only_tiles_that_were_computed_again_count(
    overflowing: Restorer, through: Through, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "grid_for", lambda radius, align: Grid(32, radius, align))
    pixels = torch.zeros(3, 64, 96, dtype=torch.uint8)
    pixels[:, :12, 84:] = 200  # Where no other tile sees it.
    _, result = through(overflowing, encoded(pixels), precision="fp16")
    assert (result.tiles, result.fallback_tiles) == (6, 1)


def test_tiles_that_are_done_again_for_want_of_memory_do_not_count_twice(
    overflowing: Restorer, encoded: Encoded, photographs: dict[str, Tensor], tmp_path: Path
) -> None:
    """Of a band of large tiles the last, which has no room, comes after one that was computed again."""
    runs = 0

    def little_memory(network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic, whole: bool) -> Computed:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return precision.compute(network, batch, part, arithmetic)

    (tmp_path / "in").write_bytes(encoded(photographs["coffee"][:, :50, :500]))
    asked = RestoreOptions(precision="fp16")
    result = overflowing.restore_file(tmp_path / "in", tmp_path / "out", asked, run=little_memory)
    assert runs == 2 + result.tiles
    assert (result.tiles, result.fallback_tiles) == (3, 3)


def test_reduced_precision_is_within_a_level_of_float32(
    random_network: Callable[..., SameSize], encoded: Encoded, photographs: dict[str, Tensor], tmp_path: Path
) -> None:
    network = random_network(2).eval()
    (tmp_path / "in").write_bytes(encoded(photographs["coffee"][:, 40:101, 80:143]))
    restorer = Restorer(network, {"scale": 1})
    images = {}
    for asked in ("fp32", "bf16"):
        restorer.restore_file(tmp_path / "in", tmp_path / asked, RestoreOptions(precision=asked))
        images[asked] = np.asarray(Image.open(tmp_path / asked)).astype(int)
    assert np.abs(images["bf16"] - images["fp32"]).max() <= 1
    assert np.abs(images["fp32"] - np.asarray(Image.open(tmp_path / "in"))).max() > 0


def test_memory_that_runs_out_halves_the_tiles_and_the_image_is_the_same(
    random_network: Callable[..., SameSize], encoded: Encoded, photographs: dict[str, Tensor], tmp_path: Path
) -> None:
    network, sides = random_network(2).eval(), []

    def little_memory(network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic, whole: bool) -> Computed:
        sides.append(max(part.height, part.width))
        if max(batch.shape[2:]) > 120:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return precision.compute(network, batch, part, arithmetic)

    (tmp_path / "in").write_bytes(encoded(photographs["coffee"][:, :250, :199]))
    restorer = Restorer(network, {"scale": 1})
    tried = restorer.restore_file(tmp_path / "in", tmp_path / "tight", run=little_memory)
    at_once = restorer.restore_file(tmp_path / "in", tmp_path / "ample")
    assert sides[0] == 250
    assert sides[-1] <= 96
    assert (at_once.tile, at_once.tiles) == (Grid(384, network.radius, network.align).side, 1)
    assert (tried.tile, tried.tiles) == (96, 9)
    tight, ample = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("tight", "ample"))
    assert np.abs(tight - ample).max() <= 1


def test_opening_a_file_counts_as_reading_alone(
    untrained: Make, through: Through, encoded: Encoded, odd_image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(source: Path) -> ImageReader:
        time.sleep(0.5)
        return open_image(source)

    monkeypatch.setattr(restore, "open_image", slowly)
    _, result = through(untrained(), encoded(to_uint8(odd_image)))
    assert result.seconds["decode"] >= 0.5
    assert 0 < result.seconds["restore"] < 0.5


def test_a_network_without_finite_results_is_said_to_have_none(
    random_network: Callable[..., SameSize], through: Through, encoded: Encoded, odd_image: Tensor
) -> None:
    network = random_network(2).eval()
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    with pytest.raises(precision.NotFinite):
        through(Restorer(network, {"scale": 1}), encoded(to_uint8(odd_image)))


def test_an_explained_image_comes_with_its_trust_map(
    random_network: Callable[..., SameSize], encoded: Encoded, odd_image: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(encoded(to_uint8(odd_image)))
    restorer = Restorer(random_network(2).eval(), {"scale": 1})
    options = RestoreOptions(explain=True, outscale=2.0)
    restorer.restore_file(tmp_path / "in", tmp_path / "out", options, trust=tmp_path / "trust.png")
    trust = Image.open(tmp_path / "trust.png")
    assert (trust.mode, trust.size) == ("L", (62, 74))
    assert np.asarray(trust).max() > 0


def test_a_model_that_knows_its_training_images_says_how_close_an_image_is(
    untrained: Make, through: Through, encoded: Encoded, photographs: dict[str, Tensor]
) -> None:
    own = [photographs[name][:, 40:240, 60:260] for name in ("astronaut", "chelsea", "coffee")]
    reference = fingerprint(own)
    assert reference is not None
    restorer = untrained()
    known = Restorer(restorer.network, {**restorer.card, "match": vars(reference)})
    noise = torch.randint(0, 256, (3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    near, distant = (through(known, encoded(pixels))[1].match for pixels in (own[0], noise))
    assert near is not None
    assert distant is not None
    assert near.word == "close"
    assert distant.word == "far"
    assert near.score > distant.score


def test_a_look_at_a_file_says_what_the_restoration_would(
    encoded: Encoded, photographs: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "in"
    path.write_bytes(encoded(photographs["rocket"][:, :400, :300]))
    assert describe_file(path) is not None
    path.write_bytes(encoded(photographs["rocket"][:, :1, :1]))
    assert describe_file(path) is None


def test_what_is_no_image_is_refused(untrained: Make, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a readable image"):
        untrained().restore_file(tmp_path / "in", tmp_path / "out")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a model of ours"):
        load_restorer(tmp_path / "model")
