"""`drtl models …`: the registry of trained models."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app.commands.options import AsJson, Key, ModelRef, Url, Yes, connect
from app.commands.output import confirm, console, present, writing
from app.failures import CommandFailed
from app.terminal import card_panel, models_table


def list_models(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Every model by name."""
    with connect(url, key) as client:
        found = [model.raw for model in client.models.list()]
    present(found, models_table(found), as_json=as_json)


def show(model: ModelRef, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """A model's card: what it was trained on, how, and what it gains."""
    with connect(url, key) as client:
        found = client.models[model].version()
    present(found.raw, card_panel(found.raw), as_json=as_json)


def promote(
    model: ModelRef,
    alias: Annotated[str, typer.Option(help="The alias to move.")] = "production",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let an alias point at a version; `production` is what is used where nobody names a version."""
    with connect(url, key) as client:
        moved = client.models[model].promote(alias)
    present(moved.raw, f"{moved.name}@{moved.alias} is now version {moved.version}", as_json=as_json)


def delete(model: ModelRef, yes: Yes = False, url: Url = None, key: Key = None) -> None:
    """Forget a version, or by a name alone a model with all its versions, and the aliases that point there."""
    with connect(url, key) as client:
        name, at, _ = model.partition("@")
        if at:
            model = f"{name}@{client.models[model].number()}"  # An alias may move while a person thinks.
            confirm(f"Delete {model}?", yes=yes)
        else:
            versions = ", ".join(map(str, client.models.get(name).versions))
            confirm(f"Delete {name} with all its versions ({versions})?", yes=yes)
        client.models[model].delete()
    console.print(f"{model} is deleted", soft_wrap=True, highlight=False)


def download(
    model: ModelRef,
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX, for other runtimes, instead of safetensors.")] = False,
    output: Annotated[
        str | None,  # A Path would forget the slash at the end, by which a folder is meant that is not there yet.
        typer.Option(
            "--output", "-o", help="A file, or a folder for NAME-vVERSION.safetensors or .onnx; otherwise here."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Get a model as a file with its card inside; `drtl upscale --model FILE` uses it without a service."""
    with connect(url, key) as client:
        name, version = model.partition("@")[0], client.models[model].number()
        file = f"{name}-v{version}.{'onnx' if onnx else 'safetensors'}"
        place = Path(output or file)
        with writing(place):
            target = place / file if place.is_dir() or (output or "").endswith(os.sep) else place
            if target.exists() and not overwrite:
                raise CommandFailed(
                    f"{target} exists", "replace it with --overwrite, or name another file with --output"
                )
            written = client.models[f"{name}@{version}"].download(target, onnx=onnx)
    console.print(f"{name}@{version} → {written}", soft_wrap=True, highlight=False)
