"""The ONNX file computes what the network computes, at every size, and says what it is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

from ml.backbones import BACKBONES, SameSize, build
from ml.distortions.resampling import resize
from ml.model_file import pack
from ml.onnx_export import export_onnx

Seeded = Callable[[int], torch.Generator]


@pytest.fixture(autouse=True)
def _unchecked_shapes() -> Iterator[None]:
    """The checks of shapes look at sizes in Python, which is just what a traced network must not do."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


SIZES = [(37, 31), (1, 1), (2, 5)]
TOLERANCE = 1e-4


def trained(backbone: str, unshuffle: int) -> SameSize:
    """A network at its published size that changes its input: an untrained one's last layer is zero."""
    network = build(backbone, unshuffle, seed=1)  # type: ignore[arg-type]  # the keys of BACKBONES
    *_, tail = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        tail.weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(2))
    return network.eval()


def card(backbone: str, unshuffle: int, scale: int = 1) -> dict[str, Any]:
    return {"backbone": backbone, "unshuffle": unshuffle, "scale": scale, "licence": "CC0-1.0", "sentence": "γ ≥ ½"}


def run(file: bytes, image: Tensor) -> np.ndarray:
    """What onnxruntime makes of the image. A warning of its own would be an error printed to the terminal only."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (restored,) = session.run(["restored"], {"image": image.numpy()})
    return np.asarray(restored)


def reference(network: SameSize, image: Tensor) -> np.ndarray:
    """What torch makes of it, pooling over the whole image where the network pools."""
    with torch.inference_mode():
        restored: Tensor = network.train()(image).clamp(0, 1)
    return restored.numpy()


@pytest.mark.timeout(400)  # The largest backbones have 16 and 22 million parameters.
@pytest.mark.parametrize("unshuffle", [1, 2])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_onnxruntime_computes_what_torch_computes_at_every_size(backbone: str, unshuffle: int, seeded: Seeded) -> None:
    network = trained(backbone, unshuffle)
    file = export_onnx(network, card(backbone, unshuffle))
    for height, width in SIZES:
        image = torch.rand(1, 3, height, width, generator=seeded(height))
        expected = reference(network, image)
        restored = run(file, image)
        assert restored.shape == expected.shape
        assert np.abs(restored - expected).max() < TOLERANCE
        if height > 2:
            assert np.abs(expected - image.numpy()).mean() > 100 * TOLERANCE, (
                "a network that does nothing shows nothing"
            )


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_batches_and_larger_images_need_no_other_file(unshuffle: int, seeded: Seeded) -> None:
    network = trained("vdsr", unshuffle)
    file = export_onnx(network, card("vdsr", unshuffle))
    for batch, height, width in ((1, 64, 64), (1, 127, 255), (3, 33, 62)):
        images = torch.rand(batch, 3, height, width, generator=seeded(batch))
        assert np.abs(run(file, images) - reference(network, images)).max() < TOLERANCE


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_enlarging_model_takes_the_small_image(scale: int, seeded: Seeded) -> None:
    network = trained("vdsr", scale)
    file = export_onnx(network, card("vdsr", scale, scale))
    for height, width in [*SIZES, (3, 1)]:
        image = torch.rand(1, 3, height, width, generator=seeded(height))
        enlarged = resize(image[0], height * scale, width * scale)[None]
        restored = run(file, image)
        assert restored.shape == (1, 3, height * scale, width * scale)
        assert np.abs(restored - reference(network, enlarged)).max() < TOLERANCE


def test_extreme_pixels_stay_in_range(seeded: Seeded) -> None:
    """Bicubic enlargement overshoots at edges, and the network may leave the range too."""
    network = trained("vdsr", 2)
    image = (torch.rand(1, 3, 23, 19, generator=seeded(0)) > 0.5).float()
    enlarged = resize(image[0], 46, 38)[None]
    assert reference(network, enlarged).shape == (1, 3, 46, 38)
    restored = run(export_onnx(network, card("vdsr", 2, 2)), image)
    assert restored.min() == 0
    assert restored.max() == 1
    assert np.abs(restored - reference(network, enlarged)).max() < TOLERANCE


def test_the_file_says_what_it_is(random_network: Callable[..., SameSize]) -> None:
    model = onnx.load_from_string(export_onnx(random_network(2), card("vdsr", 2, 2)))
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["card"]) == card("vdsr", 2, 2)
    assert said["licence"] == "CC0-1.0"
    assert said["scale"] == "2"
    assert "RGB" in said["input"]
    assert "[0, 1]" in said["input"]
    assert "2 times as high and wide" in said["output"]
    assert [entry.version for entry in model.opset_import] == [20]
    (image,), (restored,) = model.graph.input, model.graph.output
    for tensor in (image, restored):
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        batch, channels, height, width = tensor.type.tensor_type.shape.dim
        assert channels.dim_value == 3
        assert all(free.dim_param for free in (batch, height, width))


def test_the_same_model_gives_the_same_bytes(random_network: Callable[..., SameSize]) -> None:
    first, second = (export_onnx(random_network(2), card("vdsr", 2)) for _ in range(2))
    assert first == second


def test_exporting_leaves_the_network_as_it_was(random_network: Callable[..., SameSize], odd_image: Tensor) -> None:
    network = random_network(2).train()
    before = network(odd_image[None])
    export_onnx(network, card("vdsr", 2))
    assert network.training
    assert torch.equal(network(odd_image[None]), before)


def test_a_network_that_looks_at_sizes_in_python_is_refused() -> None:
    """Traced, it would be wrong at every other size, and nothing would say so."""

    class Halves(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features * 2 if features.mean() > 0.5 else features

    with pytest.raises(ValueError, match="cannot be exported"):
        export_onnx(SameSize(Halves(), 1), card("vdsr", 1))


def test_as_a_command_it_turns_one_file_into_another(random_network: Callable[..., SameSize], tmp_path: Path) -> None:
    network = build("vdsr", 2, seed=0)
    (tmp_path / "m.safetensors").write_bytes(pack(network, card("vdsr", 2)))
    command: list[str | Path] = [sys.executable, "-m", "ml.onnx_export"]
    command += [tmp_path / "m.safetensors", tmp_path / "m.onnx"]
    subprocess.run(command, check=True)
    assert (tmp_path / "m.onnx").read_bytes() == export_onnx(network, card("vdsr", 2))
    (tmp_path / "m.safetensors").write_bytes(b"no model")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "not a model of ours" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_full_disk_and_too_little_memory_have_a_code_of_their_own(tmp_path: Path) -> None:
    file, exporter = tmp_path / "m.safetensors", [sys.executable, "-m", "ml.onnx_export"]
    file.write_bytes(pack(build("vdsr", 2, seed=0), card("vdsr", 2)))
    full = subprocess.run([*exporter, file, "/dev/full"], capture_output=True, text=True, check=False)
    assert (full.returncode, "No space left" in full.stderr) == (os.EX_TEMPFAIL, True)

    with file.open("r+b") as sparse:
        sparse.truncate(100 << 30)
    confined: list[str | Path] = ["sh", "-c", 'ulimit -v 67108864 && exec "$0" "$@"']  # 64 GiB.
    confined += [*exporter, file, tmp_path / "m.onnx"]
    small = subprocess.run(confined, capture_output=True, text=True, check=False)
    file.unlink()  # Nobody shall come to copy it.
    assert (small.returncode, "MemoryError" in small.stderr) == (os.EX_TEMPFAIL, True)
