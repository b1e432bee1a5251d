"""Restores the image files that standard input names, without the service: `python -m ml.upscale MODEL`.

Each line in is a JSON object with `source` and `target`. Each line out is one, too: `share` (0…1) of the image number
`image` is done, it is `restored` with these facts, it `failed` for this reason, or the model is `unusable`.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args

from PIL import Image

from ml.images import FileFormat
from ml.restore import Restorer, load_restorer
from ml.tiling import TILE, tiles


@dataclass(frozen=True)
class Options:
    """How to restore, and how to write the result; `outscale` is relative to the input."""

    output: str = "png"
    precision: str = "auto"
    outscale: float | None = None
    ensemble: int = 1
    metadata: Literal["keep", "strip"] = "keep"


Tell = Callable[..., None]


def restore_file(
    restorer: Restorer, source: Path, target: Path, options: Options, after_tiles: Callable[[float], None]
) -> dict[str, Any]:
    """Restore one file into another; returns how it was made. The one place that knows what a `Restorer` can do.

    `after_tiles` hears the share of the image that is done. Raises ValueError for what is no readable image, and for
    options that cannot be met.
    """
    output = _as_format(options.output)
    if options != Options(options.output):
        raise ValueError("options: precision, outscale, ensemble and metadata cannot be chosen here yet")
    file = source.read_bytes()
    with Image.open(source) as header:
        width, height = header.width * restorer.scale, header.height * restorer.scale
    count, done = len(tiles(height, width, TILE, 0, 1)), 0

    def after_tile() -> None:
        nonlocal done
        done += 1
        after_tiles(done / count)

    restored = restorer.restore(file, output, after_tile)
    target.write_bytes(restored.data)
    return {
        "width": restored.width,
        "height": restored.height,
        "precision": restored.precision,
        "seconds": restored.seconds,
    }


def _as_format(name: str) -> FileFormat:
    for known in get_args(FileFormat):
        if name == known:
            return known  # type: ignore[no-any-return]  # mypy does not know what get_args gives.
    raise ValueError(f"output: {name!r} cannot be written")


def restore_all(restorer: Restorer, lines: Iterable[str], options: Options, tell: Tell) -> None:
    """Restore one file after another; one that fails does not keep the others from being done.

    A result appears under its name when it is whole, and never in part.
    """
    for number, line in enumerate(lines):
        task = json.loads(line)
        source, target = Path(task["source"]), Path(task["target"])
        unfinished = target.with_name(f".{target.name}.part")

        def after_tiles(share: float, number: int = number) -> None:
            tell(image=number, share=share)

        try:
            after_tiles(0.0)
            target.parent.mkdir(parents=True, exist_ok=True)
            facts = restore_file(restorer, source, unfinished, options, after_tiles)
            unfinished.replace(target)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:  # RuntimeError is torch out of memory.
            tell(image=number, failed=str(error) or type(error).__name__)
        else:
            tell(image=number, restored=facts)
        finally:
            unfinished.unlink(missing_ok=True)


def main() -> int:
    """The command line; `drtl upscale` is what people use."""
    arguments = argparse.ArgumentParser(prog="python -m ml.upscale", description=__doc__)
    arguments.add_argument("model", type=Path, help="a model file of ours (safetensors)")
    arguments.add_argument("--output", default="png", help="png, jpeg, webp or tiff")
    arguments.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    arguments.add_argument("--outscale", type=float)
    arguments.add_argument("--ensemble", type=int, choices=(1, 8), default=1)
    arguments.add_argument("--metadata", choices=("keep", "strip"), default="keep")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    options = Options(given.output, given.precision, given.outscale, given.ensemble, given.metadata)

    def tell(**event: Any) -> None:
        print(json.dumps(event), flush=True)

    try:
        restorer = load_restorer(given.model)
    except ValueError as error:
        tell(unusable=str(error))
        return 1
    try:
        restore_all(restorer, sys.stdin, options, tell)
    except KeyboardInterrupt:  # What was being written has been removed.
        return 130
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
