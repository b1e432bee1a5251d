"""A trained model as an ONNX file, for other runtimes and languages: `python -m ml.onnx_export MODEL FILE`."""

import argparse
import copy
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from ml.backbones import SameSize
from ml.model_file import unpack
from ml.precision import is_out_of_memory

OPSET: Final = 20  # The newest that the exporter writes; onnxruntime reads it since 1.17.
INPUT: Final = "image"
OUTPUT: Final = "restored"
CONVENTION: Final = "float32, batch × 3 × height × width, RGB as in the file (gamma-encoded), in [0, 1]"
WINDOWED: Final = (
    "The network's attention pools over the whole input, as in training; the service instead restores in windows of "
    "{core} pixels with {margin} pixels around them. Feed tiles of about that size for the same quality."
)


def export_onnx(network: SameSize, card: Mapping[str, Any]) -> bytes:
    """The model as one ONNX file: the image in, the restored image out, `card["scale"]` times as high and wide.

    Batch, height and width are free, down to 1 × 1. The padding to a multiple of `unshuffle`, the bicubic enlargement
    and the clamping to [0, 1] are part of the graph. The card, the licence and what goes in and comes out are in the
    file's metadata. Raises ValueError for a network whose computation depends on the image in a way that a graph
    cannot express.
    """
    model = onnx.load_from_string(_traced(_Clamped(_poolless(network))))
    if card["scale"] > 1:
        _enlarge_first(model, card["scale"])
    model.producer_name = "drtl-service"
    helper.set_model_props(model, _metadata(network, card))
    onnx.checker.check_model(model, full_check=True)
    file: bytes = model.SerializeToString()
    return file


class _Clamped(nn.Module):
    """What a file can hold of the network's output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.network(image)
        return restored.clamp(0, 1)


def _traced(network: nn.Module) -> bytes:
    """The network's ONNX graph with free sizes, recorded from one run; docs/adr/0010-onnx.md says why this exporter."""
    file = io.BytesIO()
    free = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TracerWarning)
        torch.onnx.export(
            network,
            (torch.rand(2, 3, 19, 23),),
            file,  # type: ignore[arg-type]  # This exporter also writes to open files.
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: free, OUTPUT: free},
        )
    if warned:  # A size or a value that Python has looked at is frozen in the graph, which is wrong at other sizes.
        raise ValueError(f"network: it cannot be exported, the graph would freeze a decision ({warned[0].message})")
    return file.getvalue()


def _enlarge_first(model: onnx.ModelProto, scale: int) -> None:
    """Put the bicubic enlargement of training before the network, in place: `ml.distortions.resize` as an ONNX node.

    Keys's a = −0.5, and weights that sum to one inside the image, are what torch computes with `antialias`. Nothing is
    rounded to 8 bits between the two.
    """
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["enlarged" if name == INPUT else name for name in node.input]
    enlargement = [
        helper.make_node(
            "Resize",
            [INPUT, "", "enlargement"],
            ["overshooting"],
            mode="cubic",
            cubic_coeff_a=-0.5,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Clip", ["overshooting", "black", "white"], ["enlarged"]),
    ]
    graph.initializer.extend(
        [
            helper.make_tensor("enlargement", TensorProto.FLOAT, [4], [1, 1, scale, scale]),
            helper.make_tensor("black", TensorProto.FLOAT, [], [0]),
            helper.make_tensor("white", TensorProto.FLOAT, [], [1]),
        ]
    )
    for node in reversed(enlargement):
        graph.node.insert(0, node)
    for axis, name in ((2, "enlarged_height"), (3, "enlarged_width")):
        graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name


def _poolless(network: SameSize) -> SameSize:
    """The network without the windows in which one that pools over the whole image works outside training."""
    plain = copy.deepcopy(network).cpu().eval()
    if getattr(plain, "window", None) is not None:
        plain.__dict__["window"] = None
    return plain


def _metadata(network: SameSize, card: Mapping[str, Any]) -> dict[str, str]:
    scale = card["scale"]
    size = "of the same size" if scale == 1 else f"{scale} times as high and wide"
    texts = {
        "card": json.dumps(card),
        "licence": str(card.get("licence", "unknown")),
        "input": f"{INPUT}: {CONVENTION}; every size from 1 × 1",
        "output": f"{OUTPUT}: as the input, {size}",
        "scale": str(scale),
    }
    if (window := getattr(network, "window", None)) is not None:
        texts["windows"] = WINDOWED.format(core=window.core, margin=window.margin)
    return texts


def main() -> int:
    """The command line: a model file in, an ONNX file out.

    Returns 0; 1 for a model that cannot be exported; EX_TEMPFAIL (75) where a full disk or too little memory was in
    the way, which says nothing about the model.
    """
    arguments = argparse.ArgumentParser(prog="python -m ml.onnx_export", description=__doc__)
    arguments.add_argument("model", type=Path, help="a model file of ours (safetensors)")
    arguments.add_argument("file", type=Path, help="where the ONNX file goes")
    given = arguments.parse_args()
    try:
        given.file.write_bytes(export_onnx(*unpack(given.model)))
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        met = error.__cause__ or error  # `unpack` tells of whatever it meets as a ValueError.
        if isinstance(met, OSError) or is_out_of_memory(met):
            print(repr(met), file=sys.stderr)
            return os.EX_TEMPFAIL
        if not isinstance(error, ValueError):
            raise
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
