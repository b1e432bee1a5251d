"""Real-ESRGAN's network: that it is the published one, and that no file can make it anything else."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.paper.real_esrgan import OVERLAP, TILE, RRDBNet, load_real_esrgan, restore
from ml.backbones import parameter_count
from ml.foreign_weights import UnusableWeights


def small(scale: int) -> RRDBNet:
    torch.manual_seed(scale)
    return RRDBNet(scale, blocks=1, width=8)


@pytest.mark.parametrize(("scale", "published"), [(4, 16_697_987), (2, 16_703_171)])
def test_it_has_the_parameters_of_the_published_networks(scale: int, published: int) -> None:
    with torch.device("meta"):
        assert parameter_count(RRDBNet(scale)) == published


def test_its_parameters_are_named_as_in_the_published_file() -> None:
    with torch.device("meta"):
        names = set(RRDBNet(4).state_dict())
    outer = ["conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    dense = [
        f"body.{block}.rdb{number}.conv{layer}" for block in range(23) for number in (1, 2, 3) for layer in range(1, 6)
    ]
    assert names == {f"{layer}.{kind}" for layer in outer + dense for kind in ("weight", "bias")}


def written_out(weights: dict[str, Tensor], image: Tensor, scale: int) -> Tensor:
    """One residual-in-residual block and all around it, as published (arXiv:1809.00219, Fig. 4, and 2107.10833)."""

    def conv(name: str, features: Tensor) -> Tensor:
        return F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def leaky(features: Tensor) -> Tensor:
        return torch.where(features > 0, features, 0.2 * features)

    def dense(name: str, x: Tensor) -> Tensor:
        seen = [x]
        for layer in range(1, 5):
            seen.append(leaky(conv(f"{name}.conv{layer}", torch.cat(seen, dim=1))))
        return x + 0.2 * conv(f"{name}.conv5", torch.cat(seen, dim=1))

    if scale == 2:  # Each channel becomes four: the pixels of its 2×2 cells, row by row.
        image = torch.stack([image[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)], dim=2).flatten(1, 2)
    shallow = inner = conv("conv_first", image)
    for number in (1, 2, 3):
        inner = dense(f"body.0.rdb{number}", inner)
    features = shallow + conv("conv_body", shallow + 0.2 * inner)
    for name in ("conv_up1", "conv_up2"):
        features = leaky(conv(name, features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)))
    return conv("conv_last", leaky(conv("conv_hr", features)))


@pytest.mark.parametrize("scale", [2, 4])
def test_it_computes_what_the_published_network_does_written_out(scale: int) -> None:
    network, image = small(scale), torch.rand(2, 3, 8, 6)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)  # So that no part of it is too faint to be missed.
        expected = written_out(network.state_dict(), image, scale)
        assert float(expected.std()) > 0.1
        assert torch.allclose(network(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [2, 4])
def test_an_odd_image_is_enlarged_as_the_name_says_and_restored_at_its_size(scale: int) -> None:
    image = torch.rand(1, 3, 37, 31)
    with torch.no_grad():
        assert small(scale)(image).shape == (1, 3, 37 * scale, 31 * scale)
    restored = restore(small(scale), image[0])
    assert restored.shape == (3, 37, 31)
    assert 0 <= float(restored.min()) <= float(restored.max()) <= 1


def test_tiles_give_what_the_whole_image_gives() -> None:
    """Where the network sees no farther than the overlap of tiles."""
    network, image = small(4), torch.rand(3, TILE + 2 * OVERLAP, 41)
    with torch.no_grad():
        whole = F.interpolate(network(image[None]), image.shape[1:], mode="bicubic", antialias=True)[0].clamp(0, 1)
    assert torch.allclose(restore(network, image), whole, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("form", ["params_ema", "params", "bare", "safetensors"])
def test_every_published_form_of_the_file_is_read(tmp_path: Path, scale: int, form: str) -> None:
    written, path = small(scale), tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    state = written.state_dict()
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if form == "bare" else {form: state}, path)
    read = load_real_esrgan(path)
    assert read.scale == scale
    image = torch.rand(3, 20, 24)
    assert torch.equal(restore(read, image), restore(written, image))


class Malicious:
    """Unpickled, it would run a command."""

    def __init__(self, traces: Path) -> None:
        self.traces = traces

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.traces}'",)


def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, traces = tmp_path / "weights.pth", tmp_path / "traces"
    torch.save({"params_ema": small(4).state_dict(), "more": Malicious(traces)}, path)
    with pytest.raises(UnusableWeights, match=r"weights\.pth"):
        load_real_esrgan(path)
    assert not traces.exists()


@pytest.mark.parametrize(
    "damage", ["other shape", "missing", "surplus", "another network", "no tensors", "cut", "away"]
)
def test_a_file_of_anything_else_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.pth"
    state: dict[str, object] = dict(small(4).state_dict())
    match damage:
        case "other shape":
            state["conv_hr.weight"] = torch.zeros(8, 9, 3, 3)
        case "missing":
            del state["body.0.rdb2.conv3.bias"]
        case "surplus":
            state["conv_up3.weight"] = torch.zeros(1)
        case "another network":
            state = {"0.weight": torch.zeros(3)}
        case "no tensors":
            state = {"conv_first.weight": "a word"}
    torch.save(state, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if damage == "away":
        path.unlink()
    with pytest.raises(UnusableWeights, match=r"weights\.pth"):
        load_real_esrgan(path)
