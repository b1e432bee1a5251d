"""Measures a prior on photographs that it has not seen: `python -m ml.prior_measurement --clean DIR --output FILE`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from ml.prior import SHIPPED, load_prior
from ml.prior_card import metrics_of, names_all_images, table_of, unseen_photographs
from ml.prior_training import usage_errors, write


def measure_prior(
    clean: Annotated[
        list[Path], typer.Option(help="Folder of clean photographs that it has not seen; give it once for each folder.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The bundle to write, with what was measured in its card; otherwise none is.")
    ] = None,
    prior: Annotated[Path, typer.Option(help="The bundle to measure; by default the one that ships.")] = SHIPPED,
    seed: Annotated[int, typer.Option(help="Of the draw of photographs, and of their distortions.")] = 0,
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
) -> None:
    """Print the PSNR of each network on each distortion that the prior was trained on, before and after restoring.

    Up to twelve photographs are taken, of each the 256×256 pixels in its middle. The version of the bundle, its
    weights and its prototypes stay the same bits.
    """
    if threads:
        torch.set_num_threads(threads)
    with usage_errors():
        known = load_prior(prior)
    with usage_errors():
        metrics = metrics_of(known, unseen_photographs(clean, known.card, seed), seed)
    Console().print(table_of(metrics))
    if not names_all_images(known.card):
        typer.echo("The card does not name all images of its trainings: some of these may have taken part.", err=True)
    if output is not None:
        write(output, replace(known, card=known.card | {"metrics": metrics}))


if __name__ == "__main__":
    typer.run(measure_prior)
