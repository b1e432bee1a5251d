"""Compare torch's two ONNX exporters on `vdsr`, for the table of 0010. Needs onnxscript besides what tests need."""

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from ml.backbones import build

SIZES = [(37, 31), (1, 1), (64, 64), (127, 255)]


def recorded(network: nn.Module, image: Tensor, file: Path) -> None:
    free = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        network, (image,), file, dynamo=False, opset_version=20, input_names=["image"], dynamic_axes={"image": free}
    )


def from_torch_export(network: nn.Module, image: Tensor, file: Path) -> None:
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.onnx.export(
        network, (image,), dynamo=True, verbose=False, input_names=["image"], dynamic_shapes={"image": free}
    )
    assert program is not None
    program.save(file)


def largest_difference(network: nn.Module, file: Path) -> float:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for height, width in SIZES:
        image = torch.rand(1, 3, height, width)
        with torch.inference_mode():
            expected = network(image).numpy()
        (restored,) = session.run(None, {"image": image.numpy()})
        differences.append(np.abs(np.asarray(restored) - expected).max())
    return float(max(differences))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for unshuffle in (1, 2, 4):
        network = build("vdsr", unshuffle, seed=0).eval()
        nn.init.normal_(network.body[-1].weight, std=0.05)
        for export in (recorded, from_torch_export):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.onnx"
                began = time.perf_counter()
                try:
                    export(network, torch.rand(2, 3, 34, 38), file)
                except Exception as error:  # noqa: BLE001 - that it fails, and how, is what the table is about
                    print(f"| {unshuffle} | {export.__name__} | fails | {str(error).splitlines()[-1]} |")
                    continue
                seconds = time.perf_counter() - began
                print(
                    f"| {unshuffle} | {export.__name__} | {seconds:.1f} s | {largest_difference(network, file):.0e} |"
                )


if __name__ == "__main__":
    main()
