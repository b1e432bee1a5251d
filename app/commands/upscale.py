"""`drtl upscale`: image files and folders through a model, on this machine or by a service."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app import upscaling
from app.commands.options import Key, Url, complete_model, connect
from app.commands.output import console, errors
from app.failures import CommandFailed
from app.image_files import EXTENSIONS, Left, Task, plan
from app.upscaling import (
    LARGEST_OUTSCALE,
    LARGEST_OUTSCALE_OF_A_SERVICE,
    Event,
    Failed,
    Options,
    Restored,
    is_model_file,
    is_onnx_file,
)


class Format(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    TIFF = "tiff"


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Metadata(StrEnum):
    KEEP = "keep"
    STRIP = "strip"


def upscale(
    files: Annotated[list[Path], typer.Argument(help="Images, and folders of images.", exists=True)],
    model: Annotated[
        str,
        typer.Option(
            help="A model file (.safetensors): no service is needed. Or name, name@alias, name@version.",
            autocompletion=complete_model,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path(),
    output_format: Annotated[Format, typer.Option("--format", help="Format of the results.")] = Format.PNG,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of earlier runs.")] = False,
    precision: Annotated[Precision, typer.Option(help="Arithmetic.")] = Precision.AUTO,
    outscale: Annotated[
        float | None,
        typer.Option(
            help=f"Final size, relative to the input; by a service at most {LARGEST_OUTSCALE_OF_A_SERVICE}.",
            min=0.01,
            max=LARGEST_OUTSCALE,
        ),
    ] = None,
    ensemble: Annotated[int, typer.Option(help="8 averages over mirrored and turned runs: better, 8 × slower.")] = 1,
    metadata: Annotated[Metadata, typer.Option(help="Colour profile, resolution and the like.")] = Metadata.KEEP,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Restore images; writes NAME.restored.png for each, and what comes from a folder into a folder of its name.

    Inputs are never replaced. Results that exist are kept, so that a run that was stopped can be taken up again. Exits
    with 1 where an image could not be restored.
    """
    if is_onnx_file(model):
        raise CommandFailed(
            f"{model} is a model for other runtimes; drtl upscale takes one as .safetensors",
            "drtl models download NAME gets it from a service",
        )
    if ensemble not in {1, 8}:
        raise typer.BadParameter("it is 1 or 8", param_hint="--ensemble")
    if outscale is not None and outscale > LARGEST_OUTSCALE_OF_A_SERVICE and not is_model_file(model):
        raise typer.BadParameter(
            f"by a service it is at most {LARGEST_OUTSCALE_OF_A_SERVICE}, with a model file {LARGEST_OUTSCALE}",
            param_hint="--outscale",
        )
    options = Options(output_format.value, precision.value, outscale, ensemble, metadata.value)
    planned = plan(files, output, EXTENSIONS[options.output], overwrite=overwrite)
    report = Report(planned.skipped, planned.refused, quiet=as_json)
    if not (planned.tasks or planned.skipped or planned.refused):
        raise CommandFailed(f"there is no image in {', '.join(map(str, files))}")
    if planned.tasks:
        with watching(errors, len(planned.tasks), report) as tell:
            if is_model_file(model):
                upscaling.restore_here(Path(model), planned.tasks, options, tell)
            else:
                with connect(url, key) as client:
                    upscaling.restore_by_service(client, model, planned.tasks, options, tell)
    report.close(model, as_json=as_json)
    if report.failed:
        raise typer.Exit(1)


@dataclass
class Report:
    """What became of every file, told as it happens and once more in the end."""

    skipped: list[Left]
    refused: list[Left]
    quiet: bool
    restored: list[Restored] = field(default_factory=list)
    failed: list[Left] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for left in self.refused:
            self.fail(left)

    def fail(self, left: Left) -> None:
        self.failed.append(left)
        errors.print(f"[red]failed[/]  {escape(str(left.source))}: {escape(left.reason)}", soft_wrap=True)

    def finish(self, restored: Restored) -> None:
        self.restored.append(restored)
        if not self.quiet:
            task = restored.task
            console.print(f"{task.source} → {task.target}", soft_wrap=True, markup=False, highlight=False)
        if _is_far(restored):
            said = f"[yellow]unlike[/]  {escape(str(restored.task.source))}: the model was trained on images"
            errors.print(f"{said} that are distorted otherwise; do not rely on its result", soft_wrap=True)

    def close(self, model: str, *, as_json: bool) -> None:
        seconds = round(time.monotonic() - self.began, 3)
        if as_json:
            print(json.dumps(self.as_json(model, seconds), indent=2, ensure_ascii=False))
            return
        for left in self.skipped:
            errors.print(f"skipped {left.source}: {left.reason}", soft_wrap=True, markup=False, style="dim")
        far = sum(map(_is_far, self.restored))
        restored = f"{len(self.restored)} restored" + f" ({far} not to be relied on)" * (far > 0)
        counts = f"{restored}, {len(self.skipped)} skipped, {len(self.failed)} failed"
        errors.print(f"{counts} in {seconds:.1f} s", highlight=False)

    def as_json(self, model: str, seconds: float) -> dict[str, Any]:
        def left(files: list[Left]) -> list[dict[str, str]]:
            return [{"source": str(file.source), "reason": file.reason} for file in files]

        return {
            "model": model,
            "restored": [
                {"source": str(done.task.source), "target": str(done.task.target), **done.facts}
                for done in self.restored
            ],
            "skipped": left(self.skipped),
            "failed": left(self.failed),
            "seconds": seconds,
        }


def _is_far(restored: Restored) -> bool:
    """Whether the image is distorted unlike what the model was trained on."""
    return restored.facts.get("match_word") == "far"


@contextmanager
def watching(to: Console, count: int, report: Report) -> Iterator[Callable[[Event], None]]:
    """A function for what happens: it keeps the report, and moves a bar over all images where there is a terminal.

    A second bar shows how far an image is that takes more than one step.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("to go"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=to,
        transient=True,
        disable=not to.is_terminal,
        redirect_stdout=console.is_terminal,  # Where results are written into a file, they are to stay there.
    ) as progress:
        images = progress.add_task("images", total=count)
        within = progress.add_task("", total=100, visible=False)

        def tell(event: Event) -> None:
            task: Task = event.task
            ended = len(report.restored) + len(report.failed) - len(report.refused)
            match event:
                case upscaling.Progress(share=share):
                    progress.update(images, completed=ended + share)
                    name = escape(task.source.name[-30:])
                    progress.update(within, completed=round(100 * share), description=name, visible=0 < share < 1)
                case Restored():
                    report.finish(event)
                    progress.update(images, completed=ended + 1)
                case Failed(reason=reason):
                    report.fail(Left(task.source, reason))
                    progress.update(images, completed=ended + 1)

        yield tell
