"""`drtl upscale`: images through a registered model."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import AsJson, Key, Url, complete_model, connect
from app.commands.output import console, print_json


def upscale(
    files: Annotated[list[Path], typer.Argument(help="PNG or JPEG images.", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option(help="name, name@alias or name@version.", autocompletion=complete_model)],
    output: Annotated[Path, typer.Option(help="Folder for the restored images.")] = Path(),
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Restore images with a registered model; writes NAME.restored.png for each. With --json, one image a line."""
    output.mkdir(parents=True, exist_ok=True)
    with connect(url, key) as client:
        for file in files:
            restored = client.models[model].super_resolve(file)
            target = restored.save(output / f"{file.stem}.restored.png")
            if as_json:
                print_json({"file": str(file), "restored": str(target), "model": restored.model}, indent=None)
            else:
                console.print(f"{file} → {target}  [dim]{restored.model}[/]", soft_wrap=True)
