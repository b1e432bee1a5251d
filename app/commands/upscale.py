"""`drtl upscale`: images through a registered model."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import Url, connect
from app.commands.output import console


def upscale(
    files: Annotated[list[Path], typer.Argument(help="PNG or JPEG images.", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option(help="name, name@alias or name@version.")],
    output: Annotated[Path, typer.Option(help="Folder for the restored images.")] = Path(),
    url: Url = None,
) -> None:
    """Restore images with a registered model; writes NAME.restored.png for each."""
    output.mkdir(parents=True, exist_ok=True)
    with connect(url) as client:
        for file in files:
            answer = client.super_resolve(model, file)
            target = output / f"{file.stem}.restored.png"
            target.write_bytes(answer.content)
            console.print(f"{file} → {target}  [dim]{answer.headers.get('X-DRTL-Model', model)}[/]", soft_wrap=True)
