"""Restores the image files that standard input names, without the service: `python -m ml.upscale MODEL`.

Each line in is a JSON object with `source` and `target`. Each line out is one, too: `share` (0…1) of the image number
`image` is done, it is `restored` with these facts, it `failed` for this reason, or the model is `unusable`.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, get_args

from ml.image_writer import FileFormat
from ml.precision import NotFinite, Precision
from ml.restore import RestoreOptions, Restorer, load_restorer
from ml.tiling import OutOfMemory

Tell = Callable[..., None]


def restore_all(restorer: Restorer, lines: Iterable[str], options: RestoreOptions, tell: Tell) -> None:
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
            facts = restorer.restore_file(source, unfinished, options, after_tiles=after_tiles).facts()
            unfinished.replace(target)
        except (OSError, ValueError, OutOfMemory, NotFinite) as error:
            tell(image=number, failed=str(error) or type(error).__name__)
        else:
            tell(image=number, restored=facts)
        finally:
            unfinished.unlink(missing_ok=True)


def main() -> int:
    """The command line; `drtl upscale` is what people use."""
    arguments = argparse.ArgumentParser(prog="python -m ml.upscale", description=__doc__)
    arguments.add_argument("model", type=Path, help="a model file of ours (safetensors)")
    arguments.add_argument("--output", choices=get_args(FileFormat), default="png")
    arguments.add_argument("--precision", choices=get_args(Precision), default="auto")
    arguments.add_argument("--outscale", type=float)
    arguments.add_argument("--ensemble", type=int, choices=(1, 8), default=1)
    arguments.add_argument("--metadata", choices=("keep", "strip"), default="keep")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    options = RestoreOptions(
        output=given.output,
        precision=given.precision,
        outscale=given.outscale,
        ensemble=given.ensemble,
        metadata=given.metadata,
    )

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
