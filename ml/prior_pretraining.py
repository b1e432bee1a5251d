"""Trains a prior's weights of a backbone further, or those that it lacks: `python -m ml.prior_pretraining`.

All else in the bundle stays as it is: the relation of a target to the auxiliary distortions does not depend on what
a transfer starts from.
"""

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from ml.backbones import BACKBONES, build
from ml.distortions import DISTORTIONS, PAPERS
from ml.prior import SHIPPED, Prior, load_prior, theta_name
from ml.prior_card import made_from, today
from ml.prior_images import photographs_in, training_images
from ml.prior_loops import train_network, training_bars
from ml.prior_training import trained_by, usage_errors, version_of, weights_of, work_beside, write
from ml.transfer import TransferSchedule


def pretrain(
    clean: Annotated[list[Path], typer.Option(help="Folder of clean photographs; give it once for each folder.")],
    output: Annotated[Path, typer.Option(help="The bundle to write.")],
    prior: Annotated[Path, typer.Option(help="The bundle to begin with; by default the one that ships.")] = SHIPPED,
    licence: Annotated[str, typer.Option(help="Terms of the photographs, for the card.")] = "unknown",
    backbone: Annotated[str, typer.Option(help="Whose weights.")] = "vdsr",
    unshuffle: int = 2,
    steps: int = 12_000,
    batch: int = 8,
    learning_rate: float = 4e-4,
    learn: Annotated[
        Literal["paper", "all"], typer.Option(help="What is trained on: the paper's seven, or all distortions.")
    ] = "all",
    seed: Annotated[int, typer.Option(help="Another than the weights were made with, or they see the same again.")] = 1,
    threads: Annotated[int, typer.Option(help="0 lets torch decide.")] = 0,
) -> None:
    """Train a backbone on auxiliary tasks alike, from the bundle's weights or, where it has none, from nothing.

    Progress is saved beside the output every minute; the same command resumes from there and ends with the same bits.
    """
    if backbone not in BACKBONES:
        raise typer.BadParameter(f"{backbone}: known are {', '.join(BACKBONES)}")
    if threads:
        torch.set_num_threads(threads)
    with usage_errors():
        known = load_prior(prior)
    theta = theta_name(backbone, unshuffle)
    network = build(backbone, unshuffle, seed)
    further = known.start(network, backbone)
    tasks = list(PAPERS if learn == "paper" else DISTORTIONS)
    schedule = TransferSchedule(steps, batch, learning_rate=learning_rate)
    with usage_errors():
        photographs = list(photographs_in(clean))
    work = work_beside(output)
    images = training_images(photographs, seed)
    with training_bars() as progress:
        loss = train_network(network, theta, images, tasks, seed, schedule, work, progress)
    thetas = known.thetas | {theta: weights_of(network)}
    training = {
        "date": today(),
        "of": known.version,
        "theta": theta,
        "further": further,
        "tasks": tasks,
        **trained_by(schedule, loss),
        **made_from(photographs, licence, seed),
    }
    # What was measured was measured on other weights, perhaps on these photographs.
    card = known.card | {"pretraining": [*known.card.get("pretraining", []), training], "metrics": None}
    version = version_of(training["date"], known.prototypes, thetas, known.experts)
    write(
        output,
        Prior(version, known.drn, known.prototypes, thetas, card, known.experts),
        f": {theta} {'further ' if further else ''}trained for {steps:,} steps on {len(tasks)} distortions",
    )


if __name__ == "__main__":
    typer.run(pretrain)
