"""`drtl models …`: the registry of trained models."""

from pathlib import Path
from typing import Annotated

import typer

from app.client import ClientError
from app.commands.options import AsJson, Url, connect
from app.commands.output import console, present
from app.terminal import card_panel, models_table


def list_models(as_json: AsJson = False, url: Url = None) -> None:
    """Every model by name."""
    with connect(url) as client:
        found = client.models()
    present(found, models_table(found), as_json=as_json)


def show(
    model: Annotated[str, typer.Argument(help="name, or name@version.")], as_json: AsJson = False, url: Url = None
) -> None:
    """A model's card: what it was trained on, how, and what it gains."""
    with connect(url) as client:
        found = client.model_version(model)
    present(found, card_panel(found), as_json=as_json)


def download(
    model: Annotated[str, typer.Argument(help="name (the version in production), name@alias or name@version.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX, for other runtimes, instead of safetensors.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; otherwise NAME-vVERSION.safetensors or .onnx here.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    url: Url = None,
) -> None:
    """Get a model as a file with its card inside; `drtl upscale --model FILE` uses it without a service."""
    with connect(url) as client:
        name, version = client.resolve(model)
        target = output or Path(f"{name}-v{version}.{'onnx' if onnx else 'safetensors'}")
        if target.exists() and not overwrite:
            raise ClientError(f"{target} exists", "replace it with --overwrite, or name another file with --output")
        try:
            client.download_model(name, version, "onnx" if onnx else "weights", target)
        except OSError as error:
            raise ClientError(f"{target} cannot be written: {error.strerror or error}") from error
    console.print(f"{name}@{version} → {target}", soft_wrap=True, highlight=False)
